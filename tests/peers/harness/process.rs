//! A process with its descendants: its lines are kept, and dropping it ends all of them.

use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::poll;

/// What the process has written to stdout and stderr so far.
type Lines = Arc<Mutex<Vec<String>>>;

/// A running process, the leader of a group of its own.
pub struct Process {
    name: String,
    child: Child,
    lines: Lines,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts `command` without stdin and reads all that it writes.
    pub fn start(name: &str, command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        let lines = Lines::default();
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let readers = vec![read(stdout, lines.clone()), read(stderr, lines.clone())];
        Self { name: name.to_owned(), child, lines, readers }
    }

    /// Sends a signal (`TERM`) to the leader alone.
    pub fn signal(&self, signal: &str) {
        assert!(kill(signal, &self.child.id().to_string()), "{}: cannot send SIG{signal}", self.name);
    }

    /// Sends a signal to the leader and all that it has started.
    pub fn signal_all(&self, signal: &str) {
        assert!(kill(signal, &format!("-{}", self.child.id())), "{}: cannot send SIG{signal}", self.name);
    }

    /// Waits for a line in which `find` finds something.
    #[track_caller]
    pub fn wait_for_line<T>(&mut self, what: &str, mut find: impl FnMut(&str) -> Option<T>) -> T {
        poll(&format!("{what} from {}", self.name), || {
            let found = self.lines().iter().find_map(|line| find(line));
            if found.is_none()
                && let Some(status) = self.child.try_wait().unwrap()
            {
                panic!("{} ended early, {status}:\n{}", self.name, self.text());
            }
            found
        })
    }

    /// Waits for the end of the leader, and of its output.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let status = poll(&format!("end of {}", self.name), || self.child.try_wait().unwrap());
        for reader in self.readers.drain(..) {
            _ = reader.join();
        }
        status
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// All that it has written.
    pub fn text(&self) -> String {
        self.lines().join("\n")
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The group before the leader is reaped: until then its number cannot be anybody else's. Workers outlive
        // their master otherwise.
        kill("KILL", &format!("-{}", self.child.id()));
        _ = self.child.wait();
        if std::thread::panicking() {
            println!("{} has written:\n{}", self.name, self.text());
        }
    }
}

/// `false` if there is no such process any more.
fn kill(signal: &str, pid: &str) -> bool {
    // The shell's own: small systems have no other.
    let mut kill = Command::new("sh");
    kill.args(["-c", "kill -s \"$1\" -- \"$2\"", "sh", signal, pid]).stderr(Stdio::null());
    kill.status().expect("every system has a shell").success()
}

fn read(output: impl Read + Send + 'static, lines: Lines) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    })
}
