//! Threads that check passwords.
//!
//! A check takes a processor for milliseconds, and a worker serves thousands of connections: it may not
//! stand still for that long. There are few threads and a bounded queue in front of them, so that who
//! guesses passwords takes a bounded part of the machine. Passwords that are remembered need neither.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::oneshot;

use super::{Password, User};

/// Threads that check at a time.
const THREADS: usize = 2;

/// Passwords that wait to be checked. With hashes of the usual cost the last one waits for a few seconds,
/// with the costliest for a minute.
const MAX_WAITING: usize = 128;

/// Checks passwords, on threads that are started as they are needed and end with this.
pub(crate) struct PasswordChecks {
    queue: Arc<Queue>,
    /// What passwords are remembered with.
    key: hmac::Key,
}

/// As many passwords as may wait do, or there is no thread to check them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Overloaded;

struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    max_waiting: usize,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Check>,
    threads: usize,
    idle: usize,
    has_ended: bool,
}

struct Check {
    user: Arc<User>,
    password: Password,
    done: oneshot::Sender<bool>,
}

impl PasswordChecks {
    pub(crate) fn new() -> Self {
        Self::with_bound(MAX_WAITING)
    }

    fn with_bound(max_waiting: usize) -> Self {
        let random = SystemRandom::new();
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &random);
        Self {
            queue: Arc::new(Queue {
                state: Mutex::default(),
                changed: Condvar::new(),
                max_waiting,
            }),
            // The system's random numbers do not fail once it is up; all of TLS needs them, too.
            key: key.unwrap_or_else(|_| {
                let bytes = fastrand::u128(..).to_ne_bytes();
                hmac::Key::new(hmac::HMAC_SHA256, &bytes)
            }),
        }
    }

    /// What passwords are remembered with.
    pub(super) fn key(&self) -> &hmac::Key {
        &self.key
    }

    /// Has a password checked. Who no longer waits for it drops the receiver: the check is then left out
    /// if it has not begun.
    pub(crate) fn check(
        &self,
        user: Arc<User>,
        password: Password,
    ) -> Result<oneshot::Receiver<bool>, Overloaded> {
        let (done, receiver) = oneshot::channel();
        let mut state = self.queue.state.lock();
        if state.waiting.len() >= self.queue.max_waiting {
            state.waiting.retain(|check| !check.done.is_closed());
            if state.waiting.len() >= self.queue.max_waiting {
                return Err(Overloaded);
            }
        }
        if state.idle <= state.waiting.len() && state.threads < THREADS {
            let queue = Arc::clone(&self.queue);
            let key = self.key.clone();
            let name = format!("kgw-password-{}", state.threads);
            let thread = std::thread::Builder::new().name(name);
            match thread.spawn(move || queue.run(&key)) {
                Ok(_) => state.threads += 1,
                Err(_) if state.threads == 0 => return Err(Overloaded),
                // The others do it.
                Err(_) => {}
            }
        }
        state.waiting.push_back(Check {
            user,
            password,
            done,
        });
        drop(state);
        self.queue.changed.notify_one();
        Ok(receiver)
    }
}

impl Drop for PasswordChecks {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        state.has_ended = true;
        state.waiting.clear();
        drop(state);
        self.queue.changed.notify_all();
    }
}

impl fmt::Debug for PasswordChecks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordChecks").finish_non_exhaustive()
    }
}

impl Queue {
    /// Checks passwords until nobody has any more.
    fn run(&self, key: &hmac::Key) {
        while let Some(check) = self.next() {
            let is_right = check.user.check(&check.password, key);
            // Who waited may be gone by now.
            let _ = check.done.send(is_right);
        }
    }

    fn next(&self) -> Option<Check> {
        let mut state = self.state.lock();
        loop {
            if state.has_ended {
                return None;
            }
            match state.waiting.pop_front() {
                Some(check) if check.done.is_closed() => {}
                Some(check) => return Some(check),
                None => {
                    state.idle += 1;
                    self.changed.wait(&mut state);
                    state.idle -= 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Secret;
    use super::*;

    /// A user whose password takes some milliseconds to check.
    fn user(password: &str) -> Arc<User> {
        let hash = bcrypt::hash_with_salt(password, 8, [3; 16]).unwrap();
        Arc::new(User::new(Secret::compile(&hash.to_string()).unwrap()))
    }

    fn password(text: &str) -> Password {
        Password::new(text.as_bytes())
    }

    #[test]
    fn all_that_wait_are_answered() {
        let checks = PasswordChecks::new();
        let users = [user("a"), user("b"), user("c")];
        let asked: Vec<_> = (0..12)
            .map(|number| {
                let word = ["a", "b"][number % 2];
                let user = Arc::clone(&users[number % 3]);
                let answer = checks.check(user, password(word)).unwrap();
                (answer, word == ["a", "b", "c"][number % 3])
            })
            .collect();
        for (answer, expected) in asked {
            assert_eq!(answer.blocking_recv(), Ok(expected));
        }
    }

    #[test]
    fn as_many_wait_as_may_and_those_that_are_gone_make_room() {
        let checks = PasswordChecks::with_bound(2);
        let user = user("a");
        // Taken by nobody: there is no thread to do it.
        checks.queue.state.lock().threads = THREADS;
        let ask = || checks.check(Arc::clone(&user), password("a"));
        let (first, second) = (ask().unwrap(), ask().unwrap());
        assert_eq!(ask().map(drop), Err(Overloaded));
        drop(first);
        let third = ask().unwrap();
        assert_eq!(ask().map(drop), Err(Overloaded));
        drop((second, third));
    }

    #[test]
    fn what_waits_at_the_end_is_given_up() {
        let checks = PasswordChecks::new();
        checks.queue.state.lock().threads = THREADS;
        let asked = checks.check(user("a"), password("a")).unwrap();
        drop(checks);
        assert!(asked.blocking_recv().is_err());
    }
}
