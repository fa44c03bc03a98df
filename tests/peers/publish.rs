//! Brokers that publish over WebSocket: one publisher, many subscribers, all of them through one Trunkline.

use serde_json::json;

use crate::harness::nats::Nats;
use crate::harness::programs::are_installed;
use crate::harness::proxy::Proxy;
use crate::harness::python::{PYTHON, run};
use crate::harness::rabbitmq::RabbitMq;

#[test]
fn two_hundred_subscribers_of_nats_receive_every_message_in_order() {
    if !are_installed(&["nats-server", PYTHON]) {
        return;
    }
    let nats = Nats::start();
    let mut proxy = Proxy::to(&format!("http1://{}", nats.websocket));
    let said = run("nats_fan.py", &[&format!("ws://{proxy}"), "200", "20"]);
    assert_eq!(said, json!({ "received": 200 * 20, "complete_in_order": 200 }), "{}", proxy.log());
    proxy.stop();
    assert!(proxy.failures().is_empty(), "{:?}", proxy.failures());
}

#[test]
fn rabbitmq_pushes_messages_to_fifty_consumers_as_they_are_published() {
    if !are_installed(&["rabbitmq-server", "epmd", PYTHON]) {
        return;
    }
    let rabbitmq = RabbitMq::start();
    let mut proxy = Proxy::to(&format!("http1://{}", rabbitmq.websocket));
    let said = run("stomp_push.py", &[&format!("ws://{proxy}/ws"), "50", "20"]);
    assert_eq!(said, json!({ "pushed": 50 * 20, "close_codes": [1000] }), "{}", proxy.log());
    proxy.stop();
    assert!(proxy.failures().is_empty(), "{:?}", proxy.failures());
}
