//! What systemd is told (sd_notify(3)), and that the agent is alive. Without systemd, nothing.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// The notify socket, and the watchdog.
#[derive(Debug)]
pub(super) struct Systemd {
    /// How often systemd wants to hear that we are alive; half of what it waits.
    every: Option<Duration>,
    last: Instant,
}

impl Systemd {
    pub(super) fn new() -> Self {
        Self { every: sd_notify::watchdog_enabled().map(|usec| usec / 2), last: Instant::now() }
    }

    /// When it is to be told again.
    pub(super) fn due(&self, origin: Instant) -> Option<i64> {
        let at = self.last + self.every?;
        Some(i64::try_from(at.saturating_duration_since(origin).as_millis()).unwrap_or(i64::MAX))
    }

    /// We have woken up.
    pub(super) fn alive(&mut self) {
        // whoever wakes anyway may as well tell: the next time is later then
        if self.every.is_some_and(|every| self.last.elapsed() >= every / 2) {
            self.last = Instant::now();
            tell(&[NotifyState::Watchdog]);
        }
    }

    pub(super) fn ready() {
        tell(&[NotifyState::Ready]);
    }

    pub(super) fn reloading() {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(_) => tell(&[NotifyState::Reloading]),
        }
    }

    pub(super) fn stopping() {
        tell(&[NotifyState::Stopping]);
    }

    /// A line: what is more than that goes.
    pub(super) fn say(text: &str) {
        let line: String = text.chars().map(|char| if char.is_control() { ' ' } else { char }).take(400).collect();
        tell(&[NotifyState::Status(&line)]);
    }
}

/// Nobody who listens is no failure.
fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::debug!(%error, "systemd cannot be told");
    }
}
