//! One coarse timing wheel per worker, for every timeout of every request and client connection.
//!
//! A [`Timer`] belongs to a task and is re-armed by storing a number: no allocation, no clock read and no
//! list operation per request. The wheel looks at a timer when the slot comes round where it was last queued, and moves
//! it on if it has been re-armed for later. Resolution is [`TICK`]; a timeout never fires early.
//!
//! Lives on one worker. Knows neither requests nor sockets.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// The resolution of every timeout.
pub(crate) const TICK: Duration = Duration::from_millis(16);
/// Slots of the wheel; a timer further off than this many ticks is looked at once on the way.
const SLOTS: u64 = 1024;
const NEVER: u64 = u64::MAX;

/// The timers of one worker.
pub(crate) struct Wheel {
    origin: Instant,
    /// Every deadline up to this tick has fired.
    swept: Cell<u64>,
    slots: RefCell<Vec<Vec<Rc<Entry>>>>,
    /// The tick that [`Wheel::run`] sleeps towards.
    sleeping_until: Cell<u64>,
    earlier: Notify,
}

struct Entry {
    /// The tick at which the timer expires, or [`NEVER`].
    deadline: Cell<u64>,
    /// The tick whose slot holds this entry, or [`NEVER`]. Copies in other slots are stale.
    queued: Cell<u64>,
    waker: RefCell<Option<Waker>>,
}

impl Wheel {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            origin: Instant::now(),
            swept: Cell::new(0),
            slots: RefCell::new((0..SLOTS).map(|_| Vec::new()).collect()),
            sleeping_until: Cell::new(0),
            earlier: Notify::new(),
        })
    }

    /// Fires timers until the worker's runtime ends. One task per wheel.
    pub(crate) async fn run(self: Rc<Self>) {
        loop {
            let next = self.next_queued();
            self.sleeping_until.set(next);
            if next == NEVER {
                self.earlier.notified().await;
            } else {
                let at = self.origin + Duration::from_millis(next * TICK.as_millis() as u64);
                tokio::select! {
                    () = tokio::time::sleep_until(at) => self.sweep(next),
                    () = self.earlier.notified() => {}
                }
            }
        }
    }

    /// The nearest tick whose slot holds an entry.
    fn next_queued(&self) -> u64 {
        let swept = self.swept.get();
        let slots = self.slots.borrow();
        (swept + 1..=swept + SLOTS).find(|tick| !slots[slot(*tick)].is_empty()).unwrap_or(NEVER)
    }

    fn sweep(&self, tick: u64) {
        self.swept.set(tick);
        let due = std::mem::take(&mut self.slots.borrow_mut()[slot(tick)]);
        for entry in due {
            if entry.queued.get() != tick {
                continue;
            }
            entry.queued.set(NEVER);
            match entry.deadline.get() {
                NEVER => {}
                deadline if deadline <= tick => entry.wake(),
                deadline => self.queue(&entry, deadline),
            }
        }
    }

    fn queue(&self, entry: &Rc<Entry>, deadline: u64) {
        let swept = self.swept.get();
        let tick = deadline.clamp(swept + 1, swept + SLOTS - 1);
        entry.queued.set(tick);
        self.slots.borrow_mut()[slot(tick)].push(entry.clone());
        if tick < self.sleeping_until.get() {
            self.earlier.notify_one();
        }
    }

    /// The first tick at or after `at`, and after the last sweep.
    fn tick_after(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.origin).as_millis() as u64;
        since.div_ceil(TICK.as_millis() as u64).max(self.swept.get() + 1)
    }
}

fn slot(tick: u64) -> usize {
    (tick % SLOTS) as usize
}

impl Entry {
    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// One deadline of one task at a time; the latest [`Timer::arm`] wins.
pub(crate) struct Timer {
    wheel: Rc<Wheel>,
    entry: Rc<Entry>,
}

impl Timer {
    pub(crate) fn new(wheel: &Rc<Wheel>) -> Self {
        let entry = Entry { deadline: Cell::new(NEVER), queued: Cell::new(NEVER), waker: RefCell::new(None) };
        Self { wheel: wheel.clone(), entry: Rc::new(entry) }
    }

    /// Expires at `at`, rounded up to a [`TICK`]; replaces any earlier deadline.
    pub(crate) fn arm(&self, at: Instant) {
        let tick = self.wheel.tick_after(at);
        self.entry.deadline.set(tick);
        if tick < self.entry.queued.get() {
            self.wheel.queue(&self.entry, tick);
        }
    }

    pub(crate) fn disarm(&self) {
        self.entry.deadline.set(NEVER);
    }

    pub(crate) fn is_expired(&self) -> bool {
        self.entry.deadline.get() <= self.wheel.swept.get()
    }

    /// Names the task to wake at expiry.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        let mut waker = self.entry.waker.borrow_mut();
        match &mut *waker {
            Some(known) if known.will_wake(cx.waker()) => {}
            known => *known = Some(cx.waker().clone()),
        }
    }

    /// What wakes the task as if the timer had expired, for what else the task should look at.
    pub(crate) fn wakes(&self) -> Wakes {
        Wakes(self.entry.clone())
    }
}

/// Wakes the task of a [`Timer`], as long as that exists.
pub(crate) struct Wakes(Rc<Entry>);

impl Wakes {
    pub(crate) fn wake(&self) {
        self.0.wake();
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // The wheel may hold the entry until its slot comes round; it must not keep the task alive until then.
        self.entry.deadline.set(NEVER);
        self.entry.waker.borrow_mut().take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::task::Poll;

    async fn expiry(timer: &Timer) {
        poll_fn(|cx| {
            timer.register(cx);
            if timer.is_expired() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    async fn on_wheel<F: Future<Output = ()>>(test: impl FnOnce(Rc<Wheel>) -> F) {
        tokio::task::LocalSet::new()
            .run_until(async {
                let wheel = Wheel::new();
                tokio::task::spawn_local(wheel.clone().run());
                test(wheel).await;
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn expires_within_a_tick_after_its_deadline_and_never_before() {
        on_wheel(|wheel| async move {
            for millis in [1, 15, 16, 17, 1000, 60_000] {
                let timer = Timer::new(&wheel);
                let start = Instant::now();
                let timeout = Duration::from_millis(millis);
                timer.arm(start + timeout);
                expiry(&timer).await;
                let waited = start.elapsed();
                assert!(waited >= timeout, "{waited:?} is before {timeout:?}");
                assert!(waited <= timeout + TICK * 2, "{waited:?} is long after {timeout:?}");
            }
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn rearming_for_later_keeps_it_from_firing_at_the_first_deadline() {
        on_wheel(|wheel| async move {
            let timer = Timer::new(&wheel);
            let start = Instant::now();
            timer.arm(start + Duration::from_secs(1));
            timer.arm(start + Duration::from_secs(3));
            expiry(&timer).await;
            assert!(start.elapsed() >= Duration::from_secs(3));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn rearming_for_earlier_fires_earlier() {
        on_wheel(|wheel| async move {
            let timer = Timer::new(&wheel);
            let start = Instant::now();
            timer.arm(start + Duration::from_hours(1));
            tokio::time::sleep(Duration::from_millis(100)).await;
            timer.arm(Instant::now() + Duration::from_millis(50));
            expiry(&timer).await;
            assert!(start.elapsed() < Duration::from_millis(250));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_disarmed_timer_never_expires() {
        on_wheel(|wheel| async move {
            let timer = Timer::new(&wheel);
            timer.arm(Instant::now() + Duration::from_millis(20));
            timer.disarm();
            assert!(tokio::time::timeout(Duration::from_secs(100), expiry(&timer)).await.is_err());
        })
        .await;
    }
}
