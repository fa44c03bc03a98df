//! RabbitMQ with its Web-STOMP plugin, a broker that pushes to consumers over WebSocket.
//!
//! A node of its own, with its own folders and ports: nothing is shared with a RabbitMQ that the machine may have. Its
//! name service, epmd, would be started as a daemon and stay, so it is started here first.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::address::ReservedAddress;
use super::process::Process;
use super::{poll, poll_within, programs};

/// A running RabbitMQ; dropping it kills it.
pub struct RabbitMq {
    // In the order in which they have to go.
    broker: Process,
    _name_service: Process,
    /// Where it speaks STOMP over WebSocket, at `/ws`.
    pub websocket: ReservedAddress,
    _others: [ReservedAddress; 4],
    _folder: TempDir,
}

impl RabbitMq {
    #[track_caller]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [websocket, names, distribution, amqp, stomp] = std::array::from_fn(|_| ReservedAddress::new());
        let within = |name: &str| folder.path().join(name);
        std::fs::write(within("plugins"), "[rabbitmq_web_stomp].\n").unwrap();
        let settings = format!(
            "listeners.tcp.1 = {amqp}\nstomp.listeners.tcp.1 = {stomp}\nweb_stomp.tcp.ip = 127.0.0.1\n\
             web_stomp.tcp.port = {}\nlog.console.level = warning\n",
            websocket.port()
        );
        std::fs::write(within("rabbitmq.conf"), settings).unwrap();

        let of_erlang = |command: &mut Command| {
            // A cookie in the home folder is what lets nodes talk.
            command.env("HOME", folder.path());
            command.env("ERL_EPMD_ADDRESS", "127.0.0.1").env("ERL_EPMD_PORT", names.port().to_string());
        };
        let mut command = Command::new(programs::path("epmd"));
        of_erlang(&mut command);
        let mut name_service = Process::start("epmd", &mut command);
        poll("epmd that accepts", || {
            assert!(!name_service.has_ended(), "epmd ended early:\n{}", name_service.text());
            TcpStream::connect(names.socket_address()).ok()
        });

        let mut command = Command::new(script());
        of_erlang(&mut command);
        command
            .env("RABBITMQ_NODENAME", "trunkline@localhost")
            .env("RABBITMQ_DIST_PORT", distribution.port().to_string())
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}")
            .env("RABBITMQ_MNESIA_BASE", within("mnesia"))
            .env("RABBITMQ_LOG_BASE", within("log"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_PID_FILE", within("pid"))
            .env("RABBITMQ_CONF_ENV_FILE", within("none"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", within("plugins"))
            .env("RABBITMQ_CONFIG_FILE", within("rabbitmq.conf"));
        let broker = Process::start("rabbitmq-server", &mut command);
        let others = [names, distribution, amqp, stomp];
        let mut rabbitmq = Self { broker, _name_service: name_service, websocket, _others: others, _folder: folder };
        poll_within(START_BOUND, "RabbitMQ that accepts", || {
            assert!(!rabbitmq.broker.has_ended(), "rabbitmq-server ended early:\n{}", rabbitmq.broker.text());
            TcpStream::connect(rabbitmq.websocket.socket_address()).ok()
        });
        rabbitmq
    }
}

/// Debian's program of that name changes to a user of its own first, which here is nobody's wish.
fn script() -> std::path::PathBuf {
    let script = Path::new("/usr/lib/rabbitmq/bin/rabbitmq-server");
    if script.is_file() { script.to_path_buf() } else { programs::path("rabbitmq-server") }
}

/// It takes five seconds on an idle machine, twelve on a busy one.
const START_BOUND: Duration = Duration::from_secs(90);
