//! Carries message bytes as they are: the engine transcodes wire bytes, so no
//! message struct is ever made of a request or a response.

use bytes::{Buf, BufMut, Bytes};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// A codec of bytes, with buffers of a given size.
#[derive(Clone, Copy, Debug)]
pub struct WireCodec(BufferSettings);

impl WireCodec {
    /// For single messages.
    pub fn unary() -> Self {
        // Most messages are short, and a longer one makes its own room.
        Self(BufferSettings::new(2048, 32 * 1024))
    }

    /// For watches, of which there may be very many: half of a stream's memory
    /// would be the default buffer.
    pub fn stream() -> Self {
        Self(BufferSettings::new(1024, 32 * 1024))
    }
}

impl Codec for WireCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for WireCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.reserve(item.len());
        dst.put(item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0
    }
}

impl Decoder for WireCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(src.copy_to_bytes(src.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0
    }
}
