//! Writes responses of the stream.
//!
//! A delta is mostly resources that many streams are sent. They are encoded once ([`Shared::encoded`]) and copied into
//! the frame as they are; only the frame around them is made for each stream.

use std::sync::Arc;

use outrigger_proto::dataplane::v1::{DiscoverRequest, DiscoverResponse};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::compile::Shared;

/// A response of the stream.
#[derive(Debug)]
pub enum Outgoing {
    /// Anything but a delta.
    Message(DiscoverResponse),
    Delta(Delta),
}

/// An `outrigger.dataplane.v1.Delta` of shared resources.
#[derive(Clone, Debug, Default)]
pub struct Delta {
    pub nonce: String,
    pub version: u64,
    pub resources: Vec<Arc<Shared>>,
    pub removed: Vec<Arc<str>>,
}

// Field numbers of DiscoverResponse and Delta. A test compares with the generated code.
const RESPONSE_DELTA: u32 = 2;
const NONCE: u32 = 1;
const VERSION: u32 = 2;
const RESOURCES: u32 = 3;
const REMOVED: u32 = 4;

impl Delta {
    fn len(&self) -> usize {
        let version = key_len(VERSION) + encoded_len_varint(self.version);
        let resources = self
            .resources
            .iter()
            .map(|it| field_len(RESOURCES, it.encoded.len()));
        let removed = self
            .removed
            .iter()
            .map(|name| field_len(REMOVED, name.len()));
        field_len(NONCE, self.nonce.len())
            + version
            + resources.sum::<usize>()
            + removed.sum::<usize>()
    }

    /// Appends the encoded `DiscoverResponse`.
    fn encode(&self, buffer: &mut impl bytes::BufMut) {
        encode_key(RESPONSE_DELTA, WireType::LengthDelimited, buffer);
        encode_varint(self.len() as u64, buffer);
        encode_field(NONCE, self.nonce.as_bytes(), buffer);
        encode_key(VERSION, WireType::Varint, buffer);
        encode_varint(self.version, buffer);
        for resource in &self.resources {
            encode_field(RESOURCES, &resource.encoded, buffer);
        }
        for name in &self.removed {
            encode_field(REMOVED, name.as_bytes(), buffer);
        }
    }
}

fn field_len(field: u32, len: usize) -> usize {
    key_len(field) + encoded_len_varint(len as u64) + len
}

fn encode_field(field: u32, bytes: &[u8], buffer: &mut impl bytes::BufMut) {
    encode_key(field, WireType::LengthDelimited, buffer);
    encode_varint(bytes.len() as u64, buffer);
    buffer.put_slice(bytes);
}

/// Reads requests and writes [`Outgoing`].
#[derive(Clone, Copy, Debug, Default)]
pub struct DiscoverCodec;

impl Codec for DiscoverCodec {
    type Encode = Outgoing;
    type Decode = DiscoverRequest;
    type Encoder = DiscoverCodec;
    type Decoder = DiscoverCodec;

    fn encoder(&mut self) -> DiscoverCodec {
        DiscoverCodec
    }

    fn decoder(&mut self) -> DiscoverCodec {
        DiscoverCodec
    }
}

impl Encoder for DiscoverCodec {
    type Item = Outgoing;
    type Error = Status;

    fn encode(&mut self, item: Outgoing, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        match item {
            Outgoing::Message(message) => message
                .encode(buffer)
                .map_err(|error| Status::internal(error.to_string())),
            Outgoing::Delta(delta) => {
                delta.encode(buffer);
                Ok(())
            }
        }
    }
}

impl Decoder for DiscoverCodec {
    type Item = DiscoverRequest;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DiscoverRequest>, Status> {
        DiscoverRequest::decode(buffer)
            .map(Some)
            .map_err(|error| Status::invalid_argument(error.to_string()))
    }
}

#[cfg(test)]
mod tests;
