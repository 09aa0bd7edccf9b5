//! What is left of a launcher whose app has ended while another process still writes to the app's stderr.

use std::io::{self, Read as _, Write as _};

/// Copies standard input to standard error until either ends. When nobody reads standard error any more it ends, and the writers get the
/// SIGPIPE that they would have got without us.
pub fn drain() {
    let mut input = io::stdin().lock();
    let mut output = io::stderr().lock();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                if let Err(error) = output.write_all(buffer.get(..count).unwrap_or_default())
                    && error.kind() == io::ErrorKind::BrokenPipe
                {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
