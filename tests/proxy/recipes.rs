//! The files of `config/recipes`, each doing what it is for.
//!
//! Every file is loaded as it is: addresses and the one value that a test cannot wait for come from its variables.

mod bodies;
mod streams;
mod tls;
mod unix;

use std::path::Path;

use crate::harness::proxy::{self, Proxy};

/// Starts the proxy with a recipe; `LISTEN` is a free port unless the variables say something else.
fn recipe(name: &str, variables: &[(&str, &str)]) -> Proxy {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/recipes").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let has_listen = variables.iter().any(|(variable, _)| *variable == "LISTEN");
    let listen: &[_] = if has_listen { &[] } else { &[("LISTEN", "127.0.0.1:0")] };
    let variables = [listen, variables].concat();
    for (variable, _) in &variables {
        assert!(text.contains(&format!("${{{variable}:-")), "{name} has no variable {variable}");
    }
    proxy::with_variables(&text, variables)
}
