use super::super::super::{Alpn, Identity, TlsVersion};
use super::super::tests::{errors, read, upstream, warnings};

#[test]
fn certificate_files_are_read_before_they_are_needed() {
    for (path, reason, label) in [
        ("none.pem", "cannot be read: entity not found", "give the path of a PEM file"),
        ("key.pem", "holds no certificate", "give a file with BEGIN CERTIFICATE lines"),
        ("torn.pem", "is not PEM: ", "give a file with BEGIN CERTIFICATE lines"),
        ("hollow.pem", "holds no usable CA: ", "give a file with BEGIN CERTIFICATE lines"),
    ] {
        let said = errors(&upstream(&format!("{{ endpoints: [h2://a:1], tls: {{ ca: {path} }} }}")));
        assert!(said[0].starts_with(&format!("4:41 upstreams.api.tls.ca: {path} {reason}")), "{said:?}");
        assert!(said[0].ends_with(label), "{said:?}");
    }
}

/// A configuration whose one listener has these keys in its `tls`.
fn listener_tls(keys: &str) -> String {
    format!(
        "listeners: [{{ address: 127.0.0.1:8080, tls: {{ {keys} }} }}]\nupstreams: {{ api: {{ endpoints: [h2c://a:1] }} }}\n"
    )
}

const PAIR: &str = "certificates: [{ cert: cert.pem, key: key.pem }]";

#[test]
fn a_listener_with_certificates_speaks_tls_with_these_defaults() {
    let (config, warned) = read(&listener_tls(PAIR)).unwrap();
    assert_eq!(warned.list, []);
    let tls = config.listeners[0].tls.as_ref().unwrap();
    assert_eq!(tls.certificates, [Identity { cert: "cert.pem".into(), key: "key.pem".into() }]);
    assert_eq!(
        (&tls.alpn[..], tls.min_version, &tls.client_ca),
        (&[Alpn::H2, Alpn::Http1][..], TlsVersion::Tls12, &None)
    );
    let all = format!("{PAIR}, alpn: [http/1.1], min_version: \"1.3\", client_ca: ca.pem");
    let (config, _) = read(&listener_tls(&all)).unwrap();
    let tls = config.listeners[0].tls.as_ref().unwrap();
    assert_eq!(
        (&tls.alpn[..], tls.min_version, &tls.client_ca),
        (&[Alpn::Http1][..], TlsVersion::Tls13, &Some("ca.pem".into()))
    );
}

#[test]
fn a_certificate_and_its_key_are_looked_at_together() {
    let keys_advice = "give a file with BEGIN PRIVATE KEY lines";
    for (cert, key, said, label) in [
        ("none.pem", "key.pem", "cert: none.pem cannot be read: entity not found", "give the path of a PEM file"),
        ("cert.pem", "none.pem", "key: none.pem cannot be read: entity not found", "give the path of a PEM file"),
        ("key.pem", "key.pem", "cert: key.pem holds no certificate", "give a file with BEGIN CERTIFICATE lines"),
        ("torn.pem", "key.pem", "cert: torn.pem is not PEM: ", "give a file with BEGIN CERTIFICATE lines"),
        (
            "hollow.pem",
            "key.pem",
            "cert: hollow.pem holds no X.509 certificate",
            "give a file with BEGIN CERTIFICATE lines",
        ),
        ("cert.pem", "cert.pem", "key: cert.pem holds no private key", keys_advice),
        ("cert.pem", "torn.pem", "key: torn.pem is not PEM: ", keys_advice),
        ("cert.pem", "hollow-key.pem", "key: hollow-key.pem cannot be used: ", "give an RSA, ECDSA or Ed25519 key"),
        ("cert.pem", "locked-key.pem", "key: locked-key.pem is encrypted", "guard it by its mode"),
        ("cert.pem", "old-locked-key.pem", "key: old-locked-key.pem is encrypted", "guard it by its mode"),
        ("version1.pem", "key.pem", "cert: version1.pem holds a certificate of X.509 version 1", "that is version 3"),
        ("cert.pem", "other-key.pem", "key: other-key.pem is not the key of the certificate", "was made for"),
    ] {
        let text = listener_tls(&format!("certificates: [{{ cert: {cert}, key: {key} }}]"));
        let errors = errors(&text);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains(&format!(" listeners[0].tls.certificates[0].{said}")), "{errors:?}");
        assert!(errors[0].ends_with(label), "{errors:?}");
        let client = format!("tls: {{ client_cert: {cert}, client_key: {key} }}");
        let errors = self::errors(&upstream(&format!("{{ endpoints: [h2://a:1], {client} }}")));
        assert!(errors[0].contains(&format!(" upstreams.api.tls.client_{said}")), "{errors:?}");
    }
}

#[test]
fn tls_on_a_listener_needs_certificates_and_words_that_are_known() {
    for (keys, said) in [
        // What is commented out below must not leave the listener in the clear.
        (
            "",
            "listeners[0].tls: the key `certificates` is missing; add `certificates: [{ cert: tls.crt, key: tls.key }]`",
        ),
        (
            "min_version: \"1.3\"",
            "listeners[0].tls: the key `certificates` is missing; add `certificates: [{ cert: tls.crt, key: tls.key }]`",
        ),
        (
            "certificates: [{ cert: cert.pem }]",
            "listeners[0].tls.certificates[0]: the key `key` is missing; add `key: tls.key`",
        ),
        (
            "certificates: [{ cert: cert.pem, key: key.pem }], client_ca: hollow.pem",
            "listeners[0].tls.client_ca: hollow.pem holds no usable CA: ",
        ),
        (
            "certificates: [{ cert: cert.pem, key: key.pem }], alpn: [h2, spdy]",
            "listeners[0].tls.alpn[1]: `spdy` is not one of the allowed words",
        ),
        (
            "certificates: [{ cert: cert.pem, key: key.pem }], alpn: [h2, h2]",
            "listeners[0].tls.alpn: this is given twice; first given in line 1",
        ),
        (
            "certificates: [{ cert: cert.pem, key: key.pem }], min_version: 1.1",
            "listeners[0].tls.min_version: `1.1` is not one of the allowed words",
        ),
    ] {
        let errors = errors(&listener_tls(keys));
        let (_, error) = errors[0].split_once(' ').unwrap();
        assert!(errors.len() == 1 && error.starts_with(said), "{keys}: {errors:?}");
    }
    // Positions are those of the file, whatever is left out before them.
    let text = "\
listeners:
  - { address: nowhere, tls: { certificates: [{ cert: none.pem, key: key.pem }] } }
  - address: 127.0.0.1:8080
    tls: { certificates: [{ cert: cert.pem }, { cert: cert.pem, key: none.pem }] }
upstreams: { api: { endpoints: [h2c://a:1] } }
";
    let said = "4:70 listeners[1].tls.certificates[1].key: none.pem cannot be read";
    assert!(errors(text).iter().any(|error| error.starts_with(said)), "{:?}", errors(text));
    let half = |keys: &str| errors(&upstream(&format!("{{ endpoints: [h2://a:1], tls: {{ {keys} }} }}")));
    assert_eq!(
        half("client_cert: cert.pem"),
        ["4:50 upstreams.api.tls: client_cert has no client_key; add `client_key: client.key`"]
    );
    assert_eq!(
        half("client_key: key.pem"),
        ["4:49 upstreams.api.tls: client_key has no client_cert; add `client_cert: client.crt`"]
    );
}

#[test]
fn certificates_that_end_soon_have_not_begun_or_are_never_chosen_are_warned_of() {
    let renew = "renew it; the file is read again when it changes";
    for (cert, said) in [("expired.pem", "has expired"), ("soon.pem", "expires in 10 days")] {
        let text = listener_tls(&format!("certificates: [{{ cert: {cert}, key: key.pem }}]"));
        assert_eq!(warnings(&text), [format!("1:70 listeners[0].tls.certificates[0].cert: {cert} {said}; {renew}")]);
    }
    assert_eq!(
        warnings(&listener_tls("certificates: [{ cert: early.pem, key: key.pem }]")),
        [
            "1:70 listeners[0].tls.certificates[0].cert: early.pem is not valid yet; nobody takes it before its time; is the \
          clock right?"
        ]
    );
    assert_eq!(warnings(&listener_tls("certificates: [{ cert: unnamed.pem, key: key.pem }]")), [""; 0]);
    let second = "certificates: [{ cert: cert.pem, key: key.pem }, { cert: unnamed.pem, key: key.pem }]";
    assert_eq!(
        warnings(&listener_tls(second)),
        [
            "1:104 listeners[0].tls.certificates[1].cert: unnamed.pem has no DNS name that a client could ask for; it is never \
          used; the first certificate is for clients that ask for no name"
        ]
    );
}
