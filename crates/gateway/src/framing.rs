//! Messages of gRPC calls, measured and decompressed before tonic reads them.
//!
//! tonic measures a message as it was sent, and decompresses it whatever it grows to; a Temporal
//! server measures it again after decompression. SDKs compress what they send, and know by the
//! words of these errors, which are those of Go's gRPC, that it is of no use to send it again.

use std::{
    io::Read,
    pin::Pin,
    task::{Context, Poll, ready},
};

use ::http::Request;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::bufread::MultiGzDecoder;
use http_body::{Body as _, Frame, SizeHint};
use tonic::{Status, body::Body};

/// Of a message on the wire: one byte that says whether it is compressed, four with its length.
const HEADER: usize = 5;
/// The header that says how the messages of a call are compressed.
const ENCODING: &str = "grpc-encoding";

/// The call with its messages held to `limit` bytes, as sent and as decompressed, and without
/// compression. One of another compression than gzip is left to tonic, which refuses it.
pub(crate) fn measured(request: Request<Body>, limit: usize) -> Request<Body> {
    let (mut parts, body) = request.into_parts();
    let is_gzip = parts.headers.get(ENCODING).is_some_and(|encoding| encoding == "gzip");
    if is_gzip {
        parts.headers.remove(ENCODING);
    }
    let body = Measured { body, limit, is_gzip, read: BytesMut::new(), is_over: false };
    Request::from_parts(parts, Body::new(body))
}

/// The body of a call, given on in whole messages.
struct Measured {
    body: Body,
    /// Bytes of the largest message.
    limit: usize,
    is_gzip: bool,
    /// What was read of a message that is not there as a whole yet.
    read: BytesMut,
    is_over: bool,
}

impl Measured {
    /// The next whole message, if it is there.
    fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let Some((header, _)) = self.read.split_first_chunk::<HEADER>() else { return Ok(None) };
        let [flag, a, b, c, d] = *header;
        // No message of 4 GiB is within any limit where this does not hold.
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let limit = self.limit;
        if length > limit {
            return Err(Status::resource_exhausted(format!(
                "grpc: received message larger than max ({length} vs. {limit})"
            )));
        }
        if self.read.len() < HEADER + length {
            return Ok(None);
        }
        let mut message = self.read.split_to(HEADER + length);
        if flag == 1 && self.is_gzip {
            message.advance(HEADER);
            return inflate(&message, limit).map(Some);
        }
        Ok(Some(message.freeze()))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            match self.next() {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(Frame::data(message)))),
                Ok(None) => {}
                Err(status) => return Poll::Ready(Some(Err(status))),
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    // As a rule it is one whole message, and nothing waits for its end.
                    Ok(data) if self.read.is_empty() => self.read = BytesMut::from(data),
                    Ok(data) => self.read.extend_from_slice(&data),
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                // tonic says that half a message is none.
                None if !self.read.is_empty() => {
                    let rest = self.read.split().freeze();
                    return Poll::Ready(Some(Ok(Frame::data(rest))));
                }
                None => return Poll::Ready(None),
            }
        }
    }
}

impl http_body::Body for Measured {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(None);
        }
        let polled = this.poll(cx);
        this.is_over = matches!(polled, Poll::Ready(None | Some(Err(_))));
        polled
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// A compressed message as it would have been sent without.
fn inflate(compressed: &[u8], limit: usize) -> Result<Bytes, Status> {
    let mut message = Vec::with_capacity(HEADER + compressed.len().saturating_mul(4).min(limit));
    message.put_bytes(0, HEADER);
    // One byte more than may be tells a message at the limit from one over it.
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    MultiGzDecoder::new(compressed).take(most).read_to_end(&mut message).map_err(|e| {
        Status::internal(format!("grpc: failed to decompress the received message: {e}"))
    })?;
    let length = message.len() - HEADER;
    let too_large = || {
        Status::resource_exhausted(format!(
            "grpc: received message after decompression larger than max {limit}"
        ))
    };
    if length > limit {
        return Err(too_large());
    }
    let length = u32::try_from(length).map_err(|_| too_large())?;
    message[1..HEADER].copy_from_slice(&length.to_be_bytes());
    Ok(message.into())
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        io::Write,
        task::{Context, Poll, Waker},
    };

    use flate2::{Compression, write::GzEncoder};
    use http_body_util::StreamBody;
    use tonic::Code;

    use super::*;

    const LIMIT: usize = 1000;

    fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
        let mut framed = vec![flag];
        framed.put_u32(u32::try_from(message.len()).unwrap());
        framed.extend_from_slice(message);
        framed
    }

    fn gzip(message: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(message).unwrap();
        encoder.finish().unwrap()
    }

    /// What comes of a body sent in these pieces, and the error it ends with.
    fn sent(encoding: &'static str, pieces: &[&[u8]]) -> (Vec<Bytes>, Option<Status>) {
        let frames: VecDeque<Result<_, Status>> =
            pieces.iter().map(|p| Ok(Frame::data(Bytes::copy_from_slice(p)))).collect();
        let body = Body::new(StreamBody::new(futures::stream::iter(frames)));
        let request = Request::builder().header(ENCODING, encoding).body(body).unwrap();
        let request = measured(request, LIMIT);
        assert_eq!(request.headers().contains_key(ENCODING), encoding != "gzip");
        let mut body = request.into_body();
        let mut given = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match Pin::new(&mut body).poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(frame))) => given.push(frame.into_data().unwrap()),
                Poll::Ready(Some(Err(status))) => return (given, Some(status)),
                Poll::Ready(None) => return (given, None),
                Poll::Pending => panic!("it waits"),
            }
        }
    }

    #[test]
    fn messages_come_whole_and_plain() {
        let long = vec![7; LIMIT];
        let (plain, packed) = (framed(0, b"plain"), framed(1, &gzip(&long)));
        let all = [plain.clone(), packed].concat();
        let expected = [Bytes::from(plain), framed(0, &long).into()];
        assert_eq!(sent("gzip", &[&all]).0, expected);
        let bytes: Vec<&[u8]> = all.chunks(1).collect();
        let (given, error) = sent("gzip", &bytes);
        assert_eq!(given, expected);
        assert!(error.is_none());
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let (_, error) = sent("identity", &[&framed(0, &[7; LIMIT + 1])[..HEADER]]);
        let error = error.unwrap();
        assert_eq!(error.code(), Code::ResourceExhausted);
        assert_eq!(error.message(), "grpc: received message larger than max (1001 vs. 1000)");
        for size in [LIMIT + 1, 100_000] {
            let (given, error) = sent("gzip", &[&framed(1, &gzip(&vec![7; size]))]);
            assert!(given.is_empty());
            let error = error.unwrap();
            assert_eq!(error.code(), Code::ResourceExhausted);
            let said = "grpc: received message after decompression larger than max 1000";
            assert_eq!(error.message(), said);
        }
    }

    #[test]
    fn what_is_damaged_is_refused() {
        let mut packed = gzip(&[7; 100]);
        packed.truncate(packed.len() - 9);
        let (_, error) = sent("gzip", &[&framed(1, &packed)]);
        let error = error.unwrap();
        assert_eq!(error.code(), Code::Internal);
        assert!(error.message().starts_with("grpc: failed to decompress"), "{error}");
    }

    #[test]
    fn what_is_not_ours_is_left_to_tonic() {
        let (half, other) = (&framed(0, b"half")[..7], framed(1, b"zstd"));
        assert_eq!(sent("identity", &[half]).0, [Bytes::copy_from_slice(half)]);
        assert_eq!(sent("zstd", &[&other]).0, [Bytes::from(other.clone())]);
    }
}
