//! One connection to a broker: frames out and in, each by a deadline.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

use super::failure::{Failure, check};

/// Longest answer that is taken, in bytes: well above what is asked for at once, and below what would hurt.
const MOST_BYTES: u32 = 256 * 1024 * 1024;

/// The id that brokers see in their logs and quotas.
pub const CLIENT_ID: &str = "ringlog-cli";

/// A connection that knows which versions its broker answers.
pub struct Connection {
    address: String,
    stream: TcpStream,
    /// API key, oldest and newest version.
    versions: Vec<(i16, i16, i16)>,
    correlation: i32,
}

impl Connection {
    /// Connects to `HOST:PORT` and asks for the versions.
    ///
    /// # Errors
    /// [`Failure::Unreachable`] with the reason. Resolving the name is the system's, and not cut off by the deadline.
    pub fn open(address: &str, deadline: Instant) -> Result<Connection, Failure> {
        let unreachable = |error: io::Error| Failure::Unreachable(format!("cannot reach {address}: {error}"));
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for resolved in address.to_socket_addrs().map_err(unreachable)? {
            match TcpStream::connect_timeout(&resolved, left(deadline).map_err(unreachable)?) {
                Err(error) => last = error,
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(unreachable)?;
                    let address = address.to_owned();
                    let mut connection = Connection { address, stream, versions: Vec::new(), correlation: 0 };
                    connection.ask_versions(deadline)?;
                    return Ok(connection);
                }
            }
        }
        Err(unreachable(last))
    }

    /// Version 0 is the one that every broker answers.
    fn ask_versions(&mut self, deadline: Instant) -> Result<(), Failure> {
        let correlation = self.send(0, &ApiVersionsRequest::default(), deadline)?;
        let answer = self.receive::<ApiVersionsRequest>(0, correlation, deadline)?;
        check(answer.error_code, None, || self.address.clone())?;
        self.versions = answer.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version)).collect();
        Ok(())
    }

    /// Whether the broker answers the API at all.
    pub fn answers(&self, api: ApiKey) -> bool {
        self.versions.iter().any(|(key, ..)| *key == api as i16)
    }

    /// The newest version of `R` among `ours` that the broker answers.
    ///
    /// # Errors
    /// [`Failure::Refused`] with UNSUPPORTED_VERSION where there is none.
    pub fn version<R: Request>(&self, ours: &RangeInclusive<i16>) -> Result<i16, Failure> {
        let theirs = self.versions.iter().find(|(key, ..)| *key == R::KEY);
        if let Some((_, min, max)) = theirs {
            let newest = *ours.end().min(max);
            if newest >= *ours.start().max(min) {
                return Ok(newest);
            }
        }
        let name = ApiKey::try_from(R::KEY).map_or_else(|()| R::KEY.to_string(), |key| format!("{key:?}"));
        let theirs = theirs.map_or("none".to_owned(), |(_, min, max)| format!("{min} to {max}"));
        let message = format!("the broker answers {theirs} of its versions, this program speaks {ours:?}");
        let code = kafka_protocol::error::ResponseError::UnsupportedVersion.code();
        Err(Failure::Refused { what: format!("{name} at {}", self.address), code, message: Some(message) })
    }

    /// A request in the newest version that both sides speak, and its answer.
    ///
    /// # Errors
    /// [`Connection::version`], [`Connection::send`], [`Connection::receive`].
    pub fn call<R: Request>(
        &mut self,
        ours: &RangeInclusive<i16>,
        request: &R,
        deadline: Instant,
    ) -> Result<R::Response, Failure> {
        let version = self.version::<R>(ours)?;
        let correlation = self.send(version, request, deadline)?;
        self.receive::<R>(version, correlation, deadline)
    }

    /// Sends a request and gives the id that its answer will have.
    ///
    /// # Errors
    /// [`Failure::Unreachable`] where the bytes are not taken in time; a request that this version cannot carry.
    pub fn send<R: Request>(&mut self, version: i16, request: &R, deadline: Instant) -> Result<i32, Failure> {
        self.correlation = self.correlation.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_static_str(CLIENT_ID)));
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        header
            .encode(&mut frame, R::header_version(version))
            .and_then(|()| request.encode(&mut frame, version))
            .map_err(|error| Failure::Usage(format!("version {version} of the request cannot say this: {error:#}")))?;
        let length = frame.len() as i32 - 4;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.write(&frame, deadline).map_err(|error| self.lost(&error))?;
        Ok(self.correlation)
    }

    /// The next answer, which must be to the request of this id.
    ///
    /// # Errors
    /// [`Failure::Unreachable`] where nothing comes in time, the connection ends, or the bytes are no answer.
    pub fn receive<R: Request>(
        &mut self,
        version: i16,
        correlation: i32,
        deadline: Instant,
    ) -> Result<R::Response, Failure> {
        let mut frame = self.read(deadline).map_err(|error| self.lost(&error))?;
        let header_version = R::Response::header_version(version);
        let no_broker = |why: String| Failure::Unreachable(format!("{} is no Kafka broker: {why}", self.address));
        let header =
            ResponseHeader::decode(&mut frame, header_version).map_err(|error| no_broker(format!("{error:#}")))?;
        if header.correlation_id != correlation {
            return Err(no_broker("it answers something else than was asked".into()));
        }
        R::Response::decode(&mut frame, version).map_err(|error| no_broker(format!("{error:#}")))
    }

    fn lost(&self, error: &io::Error) -> Failure {
        let why = match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                "no answer within the time (see --timeout)".to_owned()
            }
            io::ErrorKind::UnexpectedEof => "the connection was closed".to_owned(),
            _ => error.to_string(),
        };
        Failure::Unreachable(format!("{}: {why}", self.address))
    }

    fn write(&mut self, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.set_write_timeout(Some(left(deadline)?))?;
            match self.stream.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read(&mut self, deadline: Instant) -> io::Result<Bytes> {
        let mut length = [0; 4];
        self.fill(&mut length, deadline)?;
        let length = u32::from_be_bytes(length);
        if length > MOST_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("an answer of {length} bytes is no answer"),
            ));
        }
        let mut frame = vec![0; length as usize];
        self.fill(&mut frame, deadline)?;
        Ok(frame.into())
    }

    fn fill(&mut self, mut into: &mut [u8], deadline: Instant) -> io::Result<()> {
        while !into.is_empty() {
            self.stream.set_read_timeout(Some(left(deadline)?))?;
            match self.stream.read(into) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => into = &mut into[read..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The time until the deadline.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] where there is none left.
pub fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// What opening a connection to someone who answers so ends with.
    fn opened(answer: &'static [u8], hold: Duration) -> Result<(), Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; 14]).unwrap();
            stream.write_all(answer).unwrap();
            // The client's end of the connection is the end of the wait, or else the time is.
            stream.set_read_timeout(Some(hold)).unwrap();
            let _ = io::copy(&mut stream, &mut io::sink());
        });
        let result = Connection::open(&address, Instant::now() + Duration::from_millis(300)).map(drop);
        server.join().unwrap();
        result
    }

    #[test]
    fn who_is_no_broker_is_unreachable() {
        for (answer, said) in [
            (&b"HTTP/1.1 400 Bad Request\r\n"[..], "is no answer"),
            (&[0, 0, 0, 4, 0, 0, 0, 9], "something else than was asked"),
            (&[0, 0, 0, 6, 0, 0, 0, 1, 0, 0], "no Kafka broker"),
            (&[0, 0, 0, 6, 0, 0], "no answer within the time"),
        ] {
            let failure = opened(answer, Duration::from_secs(5)).unwrap_err();
            assert!(matches!(&failure, Failure::Unreachable(text) if text.contains(said)), "{failure:?}");
        }
        assert_eq!(opened(&[0, 0, 0, 10, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0], Duration::from_secs(5)), Ok(()));
    }

    #[test]
    fn versions_are_negotiated() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let versions = vec![(ApiKey::ApiVersions as i16, 2, 4)];
        let connection = Connection { address: "here".into(), stream, versions, correlation: 0 };
        assert_eq!(connection.version::<ApiVersionsRequest>(&(0..=3)), Ok(3));
        assert_eq!(connection.version::<ApiVersionsRequest>(&(3..=9)), Ok(4));
        let none = connection.version::<ApiVersionsRequest>(&(0..=1)).unwrap_err();
        assert!(none.to_string().contains("UNSUPPORTED_VERSION") && none.to_string().contains("2 to 4"), "{none}");
        assert!(!connection.answers(ApiKey::Fetch));
    }
}
