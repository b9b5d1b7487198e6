//! The bytes of gossip.
//!
//! ```text
//! packet      version 1 B = 1 │ CRC-32C of what follows 4 B │ header │ count 2 B │ update × count
//! header      kind 1 B │ probe number 1 B │ suspicions refuted 2 B │ to: reference 16 B │
//!             third node: reference 16 B │ sender: identity
//! update      state 1 B │ suspicions refuted 2 B │ identity
//! reference   node id 8 B │ incarnation 8 B
//! identity    node id 8 B │ incarnation 8 B │ cluster id 8 B │ founder 8 B │
//!             metadata replica 8 B │ flags 1 B: leaving 1, expects 2 │
//!             address, name, rack: length 1 B, UTF-8
//! ```
//! Numbers are big-endian. An announcement and the news that one is dead have no count and no
//! updates. The third node is 0 where a kind has none.
//!
//! The checksum is there because half of a member must never be believed: what gossip says is
//! spread further by whoever hears it.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use dislog_types::checksum::crc32c;
use foca::{Codec, Header, Member as Update, Message, State};

use super::Member;
use super::identity::Identity;

/// The largest packet, the envelope left out. It carries some 200 members; a cluster of more finds
/// the rest in several.
pub(super) const PACKET_BYTES_MAX: usize = 16 << 10;
/// Strings of a member are no longer: their length is one byte.
pub(super) const STRING_BYTES_MAX: usize = 255;

const VERSION: u8 = 1;
const ENVELOPE_BYTES: usize = 5;
const REFERENCE_BYTES: usize = 16;
const HEADER_BYTES: usize = 4 + 2 * REFERENCE_BYTES;
const IDENTITY_BYTES: usize = 5 * 8 + 1 + 3;

/// Bytes that are no packet, or members that are too large for one.
#[derive(Debug, thiserror::Error)]
pub(super) enum PacketError {
    #[error("a packet of version {0}")]
    Version(u8),
    #[error("the checksum is wrong")]
    Checksum,
    #[error("it ends too early")]
    Short(#[from] bytes::TryGetError),
    #[error("{0} is out of range")]
    Range(&'static str),
    #[error("there is no room left")]
    Full,
}

/// What a packet says.
pub(super) struct Packet {
    pub(super) header: Header<Identity>,
    pub(super) updates: Vec<Update<Identity>>,
}

/// Puts what foca wrote into an envelope.
pub(super) fn seal(body: &[u8]) -> Bytes {
    let mut packet = BytesMut::with_capacity(ENVELOPE_BYTES + body.len());
    packet.put_u8(VERSION);
    packet.put_u32(crc32c(body));
    packet.put_slice(body);
    packet.freeze()
}

/// Takes what foca wrote out of its envelope.
pub(super) fn unseal(mut packet: Bytes) -> Result<Bytes, PacketError> {
    let version = packet.try_get_u8()?;
    if version != VERSION {
        return Err(PacketError::Version(version));
    }
    if packet.try_get_u32()? != crc32c(&packet) {
        return Err(PacketError::Checksum);
    }
    Ok(packet)
}

impl Packet {
    /// All of `body`, to the last byte.
    pub(super) fn decode(mut body: &[u8]) -> Result<Packet, PacketError> {
        if body.len() > PACKET_BYTES_MAX {
            return Err(PacketError::Range("the length"));
        }
        let header = WireCodec.decode_header(&mut body)?;
        let mut updates = Vec::new();
        if body.has_remaining() {
            for _ in 0..body.try_get_u16()? {
                updates.push(WireCodec.decode_member(&mut body)?);
            }
        }
        if body.has_remaining() {
            Err(PacketError::Range("the end"))
        } else {
            Ok(Packet { header, updates })
        }
    }

    /// The body again, as foca wants it.
    pub(super) fn encode(&self) -> Result<Bytes, PacketError> {
        let mut body = BytesMut::new();
        WireCodec.encode_header(&self.header, &mut body)?;
        if !matches!(self.header.message, Message::Announce | Message::TurnUndead) {
            let count = u16::try_from(self.updates.len());
            body.put_u16(count.map_err(|_| PacketError::Range("the count"))?);
            for update in &self.updates {
                WireCodec.encode_member(update, &mut body)?;
            }
        }
        Ok(body.freeze())
    }
}

/// Writes and reads what foca wants to be in a packet.
pub(super) struct WireCodec;

impl Codec<Identity> for WireCodec {
    type Error = PacketError;

    fn encode_header(
        &mut self,
        header: &Header<Identity>,
        mut buf: impl BufMut,
    ) -> Result<(), PacketError> {
        if buf.remaining_mut() < HEADER_BYTES + identity_bytes(&header.src) {
            return Err(PacketError::Full);
        }
        let (kind, number, third) = parts(&header.message);
        buf.put_u8(kind);
        buf.put_u8(number);
        buf.put_u16(header.src_incarnation);
        put_reference(&mut buf, Some(&header.dst));
        put_reference(&mut buf, third);
        put_identity(&mut buf, &header.src);
        Ok(())
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Identity>, PacketError> {
        let kind = buf.try_get_u8()?;
        let number = buf.try_get_u8()?;
        let src_incarnation = buf.try_get_u16()?;
        let dst = get_reference(&mut buf)?;
        let third = get_reference(&mut buf)?;
        let message = message(kind, number, third)?;
        if dst.node_id() == 0 && message != Message::Announce {
            return Err(PacketError::Range("the destination"));
        }
        Ok(Header { src: get_identity(&mut buf)?, src_incarnation, dst, message })
    }

    fn encode_member(
        &mut self,
        update: &Update<Identity>,
        mut buf: impl BufMut,
    ) -> Result<(), PacketError> {
        if buf.remaining_mut() < 3 + identity_bytes(update.id()) {
            return Err(PacketError::Full);
        }
        buf.put_u8(match update.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        });
        buf.put_u16(update.incarnation());
        put_identity(&mut buf, update.id());
        Ok(())
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Update<Identity>, PacketError> {
        let state = match buf.try_get_u8()? {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            _ => return Err(PacketError::Range("a state")),
        };
        let refuted = buf.try_get_u16()?;
        Ok(Update::new(get_identity(&mut buf)?, refuted, state))
    }
}

/// Kind, probe number and third node of a message; [`message`] is the way back.
fn parts(message: &Message<Identity>) -> (u8, u8, Option<&Identity>) {
    match message {
        Message::Ping(number) => (1, *number, None),
        Message::Ack(number) => (2, *number, None),
        Message::PingReq { target, probe_number } => (3, *probe_number, Some(target)),
        Message::IndirectPing { origin, probe_number } => (4, *probe_number, Some(origin)),
        Message::IndirectAck { target, probe_number } => (5, *probe_number, Some(target)),
        Message::ForwardedAck { origin, probe_number } => (6, *probe_number, Some(origin)),
        Message::Announce => (7, 0, None),
        Message::Feed => (8, 0, None),
        Message::Gossip => (9, 0, None),
        Message::Broadcast => (10, 0, None),
        Message::TurnUndead => (11, 0, None),
    }
}

/// A broadcast is none of ours, and refused.
fn message(kind: u8, probe_number: u8, third: Identity) -> Result<Message<Identity>, PacketError> {
    if matches!(kind, 3..=6) && third.node_id() == 0 {
        return Err(PacketError::Range("the third node"));
    }
    Ok(match kind {
        1 => Message::Ping(probe_number),
        2 => Message::Ack(probe_number),
        3 => Message::PingReq { target: third, probe_number },
        4 => Message::IndirectPing { origin: third, probe_number },
        5 => Message::IndirectAck { target: third, probe_number },
        6 => Message::ForwardedAck { origin: third, probe_number },
        7 => Message::Announce,
        8 => Message::Feed,
        9 => Message::Gossip,
        11 => Message::TurnUndead,
        _ => return Err(PacketError::Range("the kind")),
    })
}

fn put_reference(buf: &mut impl BufMut, identity: Option<&Identity>) {
    buf.put_u64(identity.map_or(0, Identity::node_id));
    buf.put_u64(identity.map_or(0, Identity::incarnation));
}

fn get_reference(buf: &mut impl Buf) -> Result<Identity, PacketError> {
    let node_id = buf.try_get_u64()?;
    Ok(Identity::reference(node_id, buf.try_get_u64()?))
}

fn identity_bytes(identity: &Identity) -> usize {
    let Member { address, name, rack, .. } = &*identity.member;
    IDENTITY_BYTES + address.len() + name.len() + rack.len()
}

fn put_identity(buf: &mut impl BufMut, identity: &Identity) {
    let member = &*identity.member;
    buf.put_u64(member.node_id);
    buf.put_u64(member.incarnation);
    buf.put_u64(member.cluster_id);
    buf.put_u64(member.founder);
    buf.put_u64(member.metadata_replica);
    buf.put_u8(u8::from(identity.leaving) | u8::from(member.expects) << 1);
    for string in [&member.address, &member.name, &member.rack] {
        buf.put_u8(u8::try_from(string.len()).expect("strings are cut when a member comes in"));
        buf.put_slice(string.as_bytes());
    }
}

/// Who has no id or no address is nobody.
fn get_identity(buf: &mut impl Buf) -> Result<Identity, PacketError> {
    let mut member = Member {
        node_id: buf.try_get_u64()?,
        incarnation: buf.try_get_u64()?,
        cluster_id: buf.try_get_u64()?,
        founder: buf.try_get_u64()?,
        metadata_replica: buf.try_get_u64()?,
        ..Member::default()
    };
    let flags = buf.try_get_u8()?;
    if flags > 3 {
        return Err(PacketError::Range("a flag"));
    }
    member.expects = flags & 2 != 0;
    for string in [&mut member.address, &mut member.name, &mut member.rack] {
        *string = get_string(buf)?;
    }
    if member.node_id == 0 || member.address.is_empty() {
        return Err(PacketError::Range("a node"));
    }
    Ok(Identity { leaving: flags & 1 != 0, ..Identity::new(member) })
}

fn get_string(buf: &mut impl Buf) -> Result<String, PacketError> {
    let mut bytes = vec![0; usize::from(buf.try_get_u8()?)];
    buf.try_copy_to_slice(&mut bytes)?;
    String::from_utf8(bytes).map_err(|_| PacketError::Range("a string"))
}
