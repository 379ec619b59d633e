//! Every message and field that we know, as tables that need no memory of their own: [`crate::descriptors`] tells
//! more, and costs megabytes while it is there.

use super::Mark;

include!(concat!(env!("OUT_DIR"), "/schema.rs"));

/// A message: where its name is, how long that is, its first field, how many it has, its mark as an extension.
struct M(u32, u8, u16, u8, u8);

/// A field: its number, where its name is, how long that is, its kind, the message that it is, its flags.
struct F(u32, u32, u8, u8, u16, u8);

/// A message type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message(u16);

/// A field of one.
#[derive(Clone, Copy)]
pub(super) struct Field(&'static F);

/// What a field is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Varint,
    Fixed64,
    Fixed32,
    Bytes,
    Text,
    Message(Message),
    Bool,
    /// Zigzag.
    Signed,
    /// Two's complement, enums among them.
    Integer,
}

fn text(at: u32, length: u8) -> &'static str {
    let at = at as usize;
    NAMES.get(at..at + usize::from(length)).unwrap_or_default()
}

fn mark(number: u8) -> Mark {
    match number & 3 {
        1 => Mark::Refused,
        2 => Mark::Harmless,
        _ => Mark::Applied,
    }
}

impl Message {
    /// By its full name.
    pub(super) fn by_name(name: &str) -> Option<Self> {
        let found = MESSAGES.binary_search_by(|one| text(one.0, one.1).cmp(name)).ok()?;
        u16::try_from(found).ok().map(Self)
    }

    fn row(self) -> &'static M {
        &MESSAGES[usize::from(self.0)]
    }

    /// `envoy.config.listener.v3.Listener`
    pub(super) fn name(self) -> &'static str {
        text(self.row().0, self.row().1)
    }

    /// Its mark where it stands as a packed extension.
    pub(super) fn mark(self) -> Mark {
        mark(self.row().4)
    }

    /// Its fields by number.
    pub(super) fn fields(self) -> impl Iterator<Item = Field> {
        let M(_, _, first, count, _) = self.row();
        let first = usize::from(*first);
        FIELDS[first..first + usize::from(*count)].iter().map(Field)
    }

    /// The field with this number.
    pub(super) fn field(self, number: u32) -> Option<Field> {
        self.fields().find(|field| field.number() == number)
    }
}

impl Field {
    pub(super) fn number(self) -> u32 {
        self.0.0
    }

    pub(super) fn name(self) -> &'static str {
        text(self.0.1, self.0.2)
    }

    pub(super) fn kind(self) -> Kind {
        match self.0.3 {
            1 => Kind::Fixed64,
            2 => Kind::Fixed32,
            3 => Kind::Bytes,
            4 => Kind::Text,
            5 => Kind::Message(Message(self.0.4)),
            6 => Kind::Bool,
            7 => Kind::Signed,
            8 => Kind::Integer,
            _ => Kind::Varint,
        }
    }

    pub(super) fn mark(self) -> Mark {
        mark(self.0.5)
    }

    /// A list, or a map.
    pub(super) fn is_repeated(self) -> bool {
        self.0.5 & 4 != 0
    }

    /// Its default is the same as its absence.
    pub(super) fn is_implicit(self) -> bool {
        self.0.5 & 8 != 0
    }

    pub(super) fn is_map(self) -> bool {
        self.0.5 & 16 != 0
    }
}
