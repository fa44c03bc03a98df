//! `config/recipes`: every file there is right as it stands, with its defaults; but certificates have to be there.

use std::path::Path;

use crate::binary::Folder;

#[test]
fn every_recipe_is_accepted_by_check() {
    let folder = Folder::new();
    for name in ["tls", "other", "ca"] {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        folder.write(&format!("{name}.crt"), &made.cert.pem());
        folder.write(&format!("{name}.key"), &made.signing_key.serialize_pem());
    }
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/recipes");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&recipes).expect("the folder of the recipes") {
        let path = entry.expect("a file of the folder").path();
        let mut check = folder.command(&["check", "--config", &path.display().to_string()]);
        let output = check.env("CERTIFICATES", folder.path()).output().expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{}: {said}", path.display());
        names.push(path.file_stem().expect("a name").to_string_lossy().into_owned());
    }
    names.sort();
    assert_eq!(names, ["grpc", "long-poll", "sse", "tls", "unix", "uploads", "websocket"]);
}

#[test]
fn the_readme_explains_every_recipe() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).expect("the README");
    for entry in std::fs::read_dir(root.join("config/recipes")).expect("the folder of the recipes") {
        let name = entry.expect("a file of the folder").file_name().to_string_lossy().into_owned();
        assert!(readme.contains(&format!("(config/recipes/{name})")), "README.md does not link config/recipes/{name}");
    }
}
