//! What is printed for readers, shells and editors.

use crate::binary::{Folder, trunkline};

const SUBCOMMANDS: [&str; 9] =
    ["proxy", "run", "check", "demo", "healthcheck", "schema", "defaults", "completions", "man"];

#[test]
fn help_names_every_subcommand_and_the_exit_codes() {
    let said = trunkline(&["--help"]);
    assert_eq!(said.code, Some(0));
    for name in SUBCOMMANDS {
        assert!(said.stdout.contains(&format!("\n  {name} ")), "{name} is not in:\n{}", said.stdout);
    }
    assert!(said.stdout.contains("0 ok, 1 runtime, 2 usage, 78 configuration"), "{}", said.stdout);
}

#[test]
fn every_flag_has_its_variable_in_the_help() {
    for name in SUBCOMMANDS {
        let help = trunkline(&[name, "--help"]).stdout.replace('\n', " ");
        let flags = help.split(" --").skip(1).filter(|flag| !flag.starts_with("help"));
        // Before `Options:` the usage line names flags too.
        let options: Vec<_> = help.split_once("Options:").map_or("", |(_, options)| options).split(" --").collect();
        for flag in options.iter().skip(1).filter(|flag| !flag.starts_with("help")) {
            assert!(flag.contains("TRUNKLINE_"), "{name}: --{flag}");
        }
        assert!(flags.count() >= options.len().saturating_sub(2), "{name}: {help}");
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    for wrong in [&[][..], &["serve"], &["proxy", "--to", "h2c://a:1"], &["demo", "--seconds", "soon"]] {
        let said = trunkline(wrong);
        assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{wrong:?}: {said:?}");
    }
}

#[test]
fn completions_are_there_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let said = trunkline(&["completions", shell]);
        assert_eq!(said.code, Some(0));
        assert!(said.stdout.contains("healthcheck"), "{shell}: {}", said.stdout);
    }
}

#[test]
fn manual_has_every_subcommand_its_variables_and_the_exit_status() {
    let said = trunkline(&["man"]);
    assert_eq!(said.code, Some(0));
    for name in SUBCOMMANDS {
        let heading = format!(".SH \"TRUNKLINE {}\"", name.to_uppercase());
        assert!(said.stdout.contains(&heading), "{heading} is not in:\n{}", said.stdout);
    }
    assert!(said.stdout.contains("TRUNKLINE_LISTEN") && said.stdout.contains("EXIT STATUS"), "{}", said.stdout);
}

#[test]
fn schema_is_json() {
    let said = trunkline(&["schema"]);
    let schema: serde_json::Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!((said.code, &schema["title"]), (Some(0), &serde_json::json!("Trunkline configuration")));
}

#[test]
fn defaults_load_again() {
    let folder = Folder::with(&trunkline(&["defaults"]).stdout);
    let said = folder.run(&["check"]);
    assert_eq!(said.stdout, "ok: trunkline.yaml: 1 listener, 1 route, 1 upstream\n", "{said:?}");
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_reader_that_has_left_is_no_failure() {
    for page in [&["defaults"][..], &["schema"], &["man"], &["completions", "bash"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = Folder::new().command(page).stdout(writer).output().expect("the binary runs");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""), "{page:?}");
    }
}
