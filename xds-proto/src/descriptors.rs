//! Descriptors of all messages, for what has to work on any of them: JSON, support marks, dumps.

use std::io::Read as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use flate2::read::ZlibDecoder;
use prost::Name;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin.z"));

static POOL: Mutex<Option<DescriptorPool>> = Mutex::new(None);

fn kept() -> MutexGuard<'static, Option<DescriptorPool>> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The descriptors of every message and service of this crate. Decoded at the first use, in about 10 ms, and kept
/// until [`forget`].
pub fn pool() -> DescriptorPool {
    let decode = || {
        DescriptorPool::decode(file_descriptor_set().as_slice())
            .expect("build.rs wrote a valid descriptor set")
    };
    kept().get_or_insert_with(decode).clone()
}

/// Give back the 8 MiB that descriptors take. Who needs them again has them decoded again.
pub fn forget() {
    *kept() = None;
}

/// The serialized `FileDescriptorSet` behind [`pool`], with our field options, without comments.
pub fn file_descriptor_set() -> Vec<u8> {
    let mut bytes = Vec::new();
    let unpacked = ZlibDecoder::new(PACKED).read_to_end(&mut bytes);
    unpacked.expect("build.rs packed it");
    bytes
}

/// The descriptor of the message that a type URL names, if it is one of ours or well-known.
pub fn by_type_url(type_url: &str) -> Option<MessageDescriptor> {
    pool().get_message_by_name(crate::any::type_name(type_url))
}

/// The descriptor of a generated message.
pub fn of<M: Name>() -> MessageDescriptor {
    pool()
        .get_message_by_name(&M::full_name())
        .expect("generated messages and descriptors come from the same files")
}

/// The same content as a [`DynamicMessage`].
pub fn to_dynamic<M: Name>(message: &M) -> DynamicMessage {
    DynamicMessage::decode(of::<M>(), message.encode_to_vec().as_slice())
        .expect("what was just encoded with the same schema decodes")
}
