//! `trunkline man`: one manual page for the command and all its subcommands.

use std::fmt::Write as _;
use std::io;

use clap::CommandFactory as _;
use clap_mangen::Man;

use super::{Arguments, Failure, stdout};

pub(super) fn man() -> Result<(), Failure> {
    let page = page().map_err(|error| Failure::Runtime(format!("cannot make the manual page: {error}")))?;
    stdout::print(&page)
}

fn page() -> io::Result<String> {
    let mut command = Arguments::command();
    command.build();
    let main = Man::new(command.clone()).title("TRUNKLINE").manual("Trunkline");
    let mut out = Vec::new();
    main.render_title(&mut out)?;
    main.render_name_section(&mut out)?;
    main.render_synopsis_section(&mut out)?;
    main.render_description_section(&mut out)?;
    let mut text = lossy(&out);
    for subcommand in command.get_subcommands() {
        let mut out = Vec::new();
        let part = Man::new(subcommand.clone());
        part.render_synopsis_section(&mut out)?;
        part.render_description_section(&mut out)?;
        part.render_options_section(&mut out)?;
        // A page of its own for each would be nine files; here its sections are ours one level down.
        let _ = writeln!(text, ".SH \"TRUNKLINE {}\"", subcommand.get_name().to_uppercase());
        text.push_str(&lossy(&out).replace(".SH ", ".SS "));
    }
    text.push_str(AFTER);
    Ok(text)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const AFTER: &str = r#".SH "EXIT STATUS"
0 ok, 1 runtime, 2 usage, 78 configuration.
.SH SIGNALS
SIGTERM and SIGINT drain the process: not ready, no new connections, what runs is finished up to shutdown.timeout. A
second one ends it now. SIGHUP reads the configuration again and keeps the old one if it is wrong.
.SH ENVIRONMENT
TRUNKLINE_LOG overrides logs.level: a level, or a list such as trunkline=debug,h2=info. NO_COLOR turns colours off.
Every option names its own variable.
.SH FILES
\&./trunkline.yaml, /etc/trunkline/trunkline.yaml
"#;
