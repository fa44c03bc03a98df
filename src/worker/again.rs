//! How often, and when, a request goes to another connection that the last one has provably not processed.
//!
//! Lives on one worker. RFC 9113 §8.7.

use std::time::Duration;

use tokio::time::sleep;

use super::client::Client;

/// How often a request is given to a connection that then does not process it.
///
/// Where every twentieth stream is refused by chance, three attempts would lose one request in 8000, five one in three million.
pub(crate) const ATTEMPTS_MAX: u32 = 5;

/// What precedes another attempt when so many have been refused.
pub(crate) fn pause_behind(attempts: u32) -> Duration {
    if attempts < 2 { Duration::ZERO } else { PAUSE * 2u32.pow(attempts - 2) }
}

/// Waits, with the client's timer disarmed. Cancel safe.
pub(crate) async fn rest(client: &Client, pause: Duration) {
    if !pause.is_zero() {
        // Not for the timer to interrupt, be it the request's end: what follows arms it again, and tells.
        client.timer.disarm();
        Box::pin(sleep(pause)).await;
    }
}

/// Before the third attempt, and twice as long before each that follows: somebody who refuses twice may be short of
/// something.
const PAUSE: Duration = Duration::from_millis(5);
