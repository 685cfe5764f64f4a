//! The accept loop.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use crate::runtime::Worker;

/// Pause after an error that concerns the process and not the connection (no file descriptors left): accepting again at
/// once would spin, and closing a descriptor takes a moment.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts until a drain begins; each connection goes to `serve`.
pub(crate) async fn accept<F>(worker: Rc<Worker>, socket: TcpListener, serve: F)
where
    F: Fn(&Rc<Worker>, TcpStream, SocketAddr),
{
    let signaled = std::pin::pin!(worker.shared.drain.signaled());
    let accepting = std::pin::pin!(async {
        loop {
            match socket.accept().await {
                Ok((stream, peer)) => {
                    // Tokens are small: none may wait for the acknowledgement of the one before.
                    if stream.set_nodelay(true).is_ok() {
                        serve(&worker, stream, peer);
                    }
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    });
    futures_util::future::select(signaled, accepting).await;
}

/// accept(2) passes on errors that a connection met before it was accepted.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
