//! The sidecar's manifest: whether it is YAML, and whether ports and times are those of the configuration in it.

use std::fs;
use std::time::Duration;

use granit_parser::{Event, Parser};

use crate::{configuration, drain, project};

const MANIFEST: &str = "deploy/kubernetes/sidecar.yaml";

#[test]
fn the_sidecars_ports_and_times_are_those_of_its_configuration() {
    let scalars = scalars(&fs::read_to_string(project(MANIFEST)).unwrap());
    let values = |key: &str| -> Vec<&str> {
        scalars.windows(2).filter(|pair| pair[0] == key).map(|pair| pair[1].as_str()).collect()
    };
    let [text] = values("trunkline.yaml")[..] else { panic!("one configuration in {MANIFEST}") };
    let config = configuration(MANIFEST, text);

    let probes = config.admin.probes.expect("the kubelet asks the probes' address");
    assert!(probes.ip().is_unspecified(), "the kubelet comes from outside the pod");
    let ports = values("containerPort");
    assert_eq!(
        ports,
        [config.listeners[0].address.tcp().expect("a port of the pod").port().to_string(), probes.port().to_string()]
    );

    let grace = values("terminationGracePeriodSeconds")[0].parse().unwrap();
    let pause = values("seconds")[0].parse().unwrap();
    // The service's own drain has to fit in between as well.
    assert!(Duration::from_secs(grace) > Duration::from_secs(pause) + drain(&config) + Duration::from_secs(30));
}

/// Every scalar of every document in turn: in a mapping of scalars a key and then its value.
fn scalars(text: &str) -> Vec<String> {
    let mut scalars = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, _) = event.unwrap_or_else(|error| panic!("{MANIFEST}: {error}"));
        if let Event::Scalar(text, ..) = event {
            scalars.push(text.into_owned());
        }
    }
    scalars
}
