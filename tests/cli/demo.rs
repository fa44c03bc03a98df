//! `demo`, as a pipe sees it.

use crate::binary::{Folder, Running, trunkline};

#[test]
fn demo_ends_after_its_time_without_errors_or_wrong_answers() {
    let said = trunkline(&["demo", "--seconds", "1", "--connections", "16"]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{said:?}");
    assert!(said.stdout.contains(", 0 errors, 0 wrong answers\n"), "{}", said.stdout);
    assert!(said.stdout.contains("It is not a benchmark."), "{}", said.stdout);
}

#[test]
fn ctrl_c_ends_demo_with_the_total() {
    let mut running = Running::start(Folder::new().command(&["demo", "--connections", "4"]));
    running.line("requests/s");
    running.signal("INT");
    let (code, said) = running.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("total: "), "{said}");
}

#[test]
fn demo_without_load_shows_the_commands_and_waits() {
    let mut running = Running::start(Folder::new().command(&["demo", "--no-load"]));
    running.line("wrk -t1 -c256");
    running.line("0 requests/s");
    running.signal("TERM");
    let (code, said) = running.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("total: 0 requests of yours"), "{said}");
}
