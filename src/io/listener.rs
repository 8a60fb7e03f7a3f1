//! Accepting connections. All shards accept from one listening socket, and whichever gets a connection gives it to
//! the shard that has fewest: few connections would be spread badly by chance.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};
use std::rc::Rc;
use std::time::Duration;

use glommio::GlommioError;
use glommio::timer::sleep;

use super::driver::{Core, Driver};

/// Connections that may wait for a shard to accept them.
const BACKLOG: i32 = 4096;

/// How often, and after which pauses, an address that is in use is tried again.
const BIND_TRIES: u32 = 40;
const BIND_PAUSE: Duration = Duration::from_millis(25);

/// How long no connection is accepted when accepting fails, for want of descriptors above all.
const PAUSE: Duration = Duration::from_millis(100);

/// Binds the address for this process alone: there is no SO_REUSEPORT, with which a second broker would silently get
/// a share of the connections.
pub(super) fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let mut tries = 0;
    let listener = loop {
        match TcpListener::bind(addr) {
            // The kernel ends the ring of a killed broker, and with it that broker's listening socket, only some time
            // after the process is gone.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < BIND_TRIES => {
                tries += 1;
                std::thread::sleep(BIND_PAUSE);
            }
            bound => break bound?,
        }
    };
    // SAFETY: the descriptor is open; listening again changes the length of its queue.
    if unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(listener)
}

/// Ends the accepting of all shards.
pub(super) fn shut_down(listener: &TcpListener) {
    // SAFETY: the descriptor is open. A failure leaves connections to be accepted and closed again, no more.
    unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RDWR) };
}

/// Accepts connections until the broker stops.
pub(super) async fn accept_for_ever<C: Core>(driver: Rc<Driver<C>>, listener: TcpListener) {
    // SAFETY: the descriptor is an open, listening socket, given away by its only owner.
    let listener = unsafe { glommio::net::TcpListener::from_raw_fd(listener.into_raw_fd()) };
    while !driver.stopping() {
        match accept(&driver, &listener).await {
            Ok(()) => {}
            Err(_) if driver.stopping() => {}
            Err(error) => {
                driver.client_line(|| tracing::warn!("a connection could not be accepted: {error}"));
                sleep(PAUSE).await;
            }
        }
    }
}

async fn accept<C: Core>(driver: &Rc<Driver<C>>, listener: &glommio::net::TcpListener) -> Result<(), GlommioError<()>> {
    driver.accepted(listener.shared_accept().await?);
    Ok(())
}
