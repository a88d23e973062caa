//! The roll of the leases of this process, so that they can be given back before it ends.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::lease::Lease;
use super::plane;
use crate::process::own::PerProcess;
use crate::process::terminate::{self, Held};

/// How long a process that is told to end goes on for the sake of those who wait for its leases.
const FAREWELL: Duration = Duration::from_secs(1);

type Roll = Mutex<HashMap<u64, Weak<Lease>>>;

static ROLL: PerProcess<Roll> = PerProcess::new();

fn with<T>(work: impl FnOnce(&mut HashMap<u64, Weak<Lease>>) -> T) -> T {
    let roll = match ROLL.get_or_make(|| Ok::<_, Infallible>(Roll::default())) {
        Ok(roll) => roll,
        Err(never) => match never {},
    };
    work(&mut roll.lock().unwrap_or_else(PoisonError::into_inner))
}

/// On the roll until it is dropped.
#[derive(Debug)]
pub(crate) struct Enrolled {
    number: u64,
    _held: Held,
}

/// Puts a lease on the roll. None where SIGTERM cannot be listened for; the lease expires by itself then.
pub(crate) fn enroll(lease: &Arc<Lease>) -> Option<Enrolled> {
    let number = lease.number();
    let held = terminate::hold(listen).ok()?;
    with(|roll| roll.insert(number, Arc::downgrade(lease)));
    Some(Enrolled {
        number,
        _held: held,
    })
}

impl Drop for Enrolled {
    fn drop(&mut self) {
        with(|roll| roll.remove(&self.number));
    }
}

fn listen(bell: std::os::unix::net::UnixStream) -> io::Result<()> {
    let heard = async move {
        let Ok(bell) = UnixStream::from_std(bell) else {
            return;
        };
        if bell.readable().await.is_ok() {
            let leases = with(|roll| roll.values().filter_map(Weak::upgrade).collect::<Vec<_>>());
            for lease in &leases {
                lease.surrender();
            }
            drop(leases);
            let all_back = async {
                while with(|roll| !roll.is_empty()) {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            // Those that the server did not hear of in time expire.
            let _in_time = timeout(FAREWELL, all_back).await;
            terminate::finish();
        }
    };
    plane::spawn(heard).map_err(io::Error::other)
}
