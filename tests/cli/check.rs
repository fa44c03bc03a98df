//! `check` and every wrong configuration that beginners write.

use serde_json::{Value, json};

use crate::binary::{Folder, Said, trunkline};

/// Wrong with 78, nothing on stdout, no panic, and each of `parts` on stderr.
fn assert_refused(said: &Said, parts: &[&str]) {
    assert_eq!((said.code, said.stdout.as_str()), (Some(78), ""), "{said:?}");
    assert!(!said.stderr.contains("panicked"), "{}", said.stderr);
    for part in parts {
        assert!(said.stderr.contains(part), "`{part}` is not in:\n{}", said.stderr);
    }
}

#[test]
fn no_file_says_where_it_was_looked_for_and_how_to_make_one() {
    for command in ["check", "run"] {
        assert_refused(&trunkline(&[command]), &["no configuration file found", "./trunkline.yaml", "listen: "]);
    }
}

#[test]
fn files_that_cannot_be_read_say_why() {
    assert_refused(&trunkline(&["check", "-c", "nope.yaml"]), &["nope.yaml does not exist"]);
    assert_refused(&trunkline(&["check", "-c", "."]), &["is a directory, not a file"]);
    let folder = Folder::with("listen: 127.0.0.1:8080\n");
    let path = folder.path().join("trunkline.yaml");
    let mut permissions = std::fs::metadata(&path).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0);
    std::fs::set_permissions(&path, permissions).unwrap();
    // Root may read everything.
    if std::fs::read(&path).is_err() {
        assert_refused(&folder.run(&["check"]), &["trunkline.yaml may not be read by this user"]);
    }
}

#[test]
fn variable_names_the_file_and_an_empty_one_does_not() {
    let folder = Folder::with("listen: 127.0.0.1:0\nupstream: h2c://a:1\n");
    let output = folder.command(&["check"]).env("TRUNKLINE_CONFIG", "other.yaml").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("other.yaml does not exist"));
    let output = folder.command(&["check"]).env("TRUNKLINE_CONFIG", "").output().unwrap();
    assert!(output.status.success());
}

#[test]
fn an_empty_file_shows_the_smallest_one() {
    assert_refused(&Folder::with("# nothing yet\n").run(&["check"]), &["trunkline.yaml is empty", "two lines"]);
}

#[test]
fn a_syntax_error_has_its_place() {
    assert_refused(&Folder::with("listen: [127.0.0.1:8080\nupstream: x\n").run(&["check"]), &["--> trunkline.yaml:"]);
}

#[test]
fn mistakes_in_keys_units_and_names_are_shown_all_at_once() {
    let folder = Folder::with(
        "\
listeners: [{ address: 127.0.0.1:8080, timeouts: { idle: 15 } }]
routes: [{ upstream: apy }]
upstreams:
  api:
    endpoints: [\"h2c://127.0.0.1:9000\"]
    pool: { max_conections: 4 }
",
    );
    let parts = [
        "unknown key `max_conections` in upstreams.api.pool",
        "did you mean `max_connections`?",
        "15s",
        "there is no upstream called `apy`",
        "did you mean `api`?",
        "--> trunkline.yaml:6:",
    ];
    for command in ["check", "run"] {
        assert_refused(&folder.run(&[command]), &parts);
    }
}

#[test]
fn wrong_flags_of_proxy_are_shown_in_the_command_line() {
    let said = trunkline(&["proxy", "--listen", ":80", "--to", "127.0.0.1:9000"]);
    assert_refused(&said, &["--listen: `:80` has no IP address", "write h2c://127.0.0.1:9000"]);
}

#[test]
fn json_has_the_same_fields_whether_right_or_wrong() {
    let right = Folder::with("listen: 127.0.0.1:8080\nupstream: h2c://127.0.0.1:9000\n");
    let wrong = Folder::with("listen: 127.0.0.1:8080\nupstrem: h2c://127.0.0.1:9000\n");
    let answers = [right, wrong].map(|folder| {
        let said = folder.run(&["check", "--format", "json"]);
        assert_eq!(said.stderr, "");
        (said.code, serde_json::from_str::<Value>(&said.stdout).expect("JSON"))
    });
    let keys = |answer: &Value| answer.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let [(right_code, right), (wrong_code, wrong)] = answers;
    assert_eq!(keys(&right), keys(&wrong));
    assert_eq!((right_code, &right["ok"], &right["listeners"]), (Some(0), &json!(true), &json!(1)));
    assert_eq!((wrong_code, &wrong["ok"], &wrong["listeners"]), (Some(78), &json!(false), &Value::Null));
    assert_eq!(wrong["diagnostics"][0]["place"]["line"], json!(2));
}

#[test]
fn what_effective_prints_is_the_same_configuration() {
    let folder = Folder::with("listen: 127.0.0.1:8080\nupstream: h2c://127.0.0.1:9000\n");
    let printed = folder.run(&["check", "--print", "effective"]);
    assert!(printed.stdout.starts_with("version: 1\n") && printed.stderr.starts_with("ok: "), "{printed:?}");
    folder.write("long.yaml", &printed.stdout);
    let again = folder.run(&["check", "-c", "long.yaml", "--print", "effective"]);
    assert_eq!((again.code, again.stdout), (Some(0), printed.stdout));
}
