//! Replays the fuzz targets' seeds: inputs that once failed, or that show where the edges are.

use std::fs;
use std::path::Path;

#[path = "../fuzz/harness/mod.rs"]
mod harness;

#[test]
fn request_head_seeds_show_no_defect() {
    replay("request_head", harness::request_head);
}

#[test]
fn http2_head_seeds_show_no_defect() {
    replay("http2_head", harness::http2_head);
}

#[test]
fn route_seeds_show_no_defect() {
    replay("route", harness::route);
}

#[test]
fn config_seeds_show_no_defect() {
    replay("config", harness::config);
}

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("the folder is in the repository") {
        let path = entry.expect("readable").path();
        println!("{}", path.display());
        run(&fs::read(&path).expect("readable"));
        count += 1;
    }
    assert!(count > 0, "no seeds in {}", folder.display());
}
