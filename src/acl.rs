//! POSIX access control lists (acl(5)), as the kernel keeps them in two extended attributes.
//!
//! Where a file has one, the group bits of its mode are the *mask*: the most that any named user or
//! group gets. Without its list the same mode would grant that to the owning group.

use std::fmt;

/// The version of the attributes' format.
const VERSION: u32 = 2;
/// The id of entries that name no user or group.
const NO_ID: u32 = u32::MAX;
/// More than any file system keeps for a file (XFS: 5461 entries, 64 KiB).
const MOST_ENTRIES: usize = 8192;

/// The kind of an access control list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclKind {
    /// The one that governs the file itself.
    Access,
    /// The one that new files in a directory inherit.
    Default,
}

impl AclKind {
    /// The extended attribute that holds it.
    pub fn attribute(self) -> &'static str {
        match self {
            Self::Access => "system.posix_acl_access",
            Self::Default => "system.posix_acl_default",
        }
    }
}

/// The subject of an entry, in the order that the kernel requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Whom {
    Owner,
    User(u32),
    OwningGroup,
    Group(u32),
    Mask,
    Others,
}

/// A list with at least one entry that a mode cannot express.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl(Vec<(Whom, u32)>);

/// The lists of one file or directory; most have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acls {
    /// Governs the file itself.
    pub access: Option<Acl>,
    /// Inherited by new files in the directory.
    pub default: Option<Acl>,
}

impl Acls {
    /// Returns whether the file has no list.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Acl {
    /// Parses an attribute's value; `None` if the kernel would not accept the list.
    pub fn from_attribute(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first_chunk::<4>()?;
        let (entries, []) = rest.as_chunks::<8>() else { return None };
        if u32::from_le_bytes(*version) != VERSION {
            return None;
        }
        let entry = |[tag, tag2, perm, perm2, id @ ..]: &[u8; 8]| {
            let id = u32::from_le_bytes(*id);
            let whom = match u16::from_le_bytes([*tag, *tag2]) {
                0x01 => Whom::Owner,
                0x02 => Whom::User(id),
                0x04 => Whom::OwningGroup,
                0x08 => Whom::Group(id),
                0x10 => Whom::Mask,
                0x20 => Whom::Others,
                _ => return None,
            };
            Some((whom, u32::from(u16::from_le_bytes([*perm, *perm2]))))
        };
        Self::checked(entries.iter().map(entry).collect::<Option<_>>()?)
    }

    /// The attribute's value.
    pub fn to_attribute(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for (whom, bits) in &self.0 {
            let (tag, id): (u16, u32) = match *whom {
                Whom::Owner => (0x01, NO_ID),
                Whom::User(id) => (0x02, id),
                Whom::OwningGroup => (0x04, NO_ID),
                Whom::Group(id) => (0x08, id),
                Whom::Mask => (0x10, NO_ID),
                Whom::Others => (0x20, NO_ID),
            };
            bytes.extend(tag.to_le_bytes());
            bytes.extend(u16::try_from(*bits).unwrap_or_default().to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    /// Parses the output of [`fmt::Display`]; `None` if it is invalid.
    pub fn parse(text: &str) -> Option<Self> {
        let entry = |entry: &str| {
            let mut parts = entry.split(':');
            let (kind, id, bits) = (parts.next()?, parts.next()?, parts.next()?);
            let id = if id.is_empty() { None } else { Some(id.parse().ok()?) };
            let whom = match (kind, id) {
                ("user", None) => Whom::Owner,
                ("user", Some(id)) => Whom::User(id),
                ("group", None) => Whom::OwningGroup,
                ("group", Some(id)) => Whom::Group(id),
                ("mask", None) => Whom::Mask,
                ("other", None) => Whom::Others,
                _ => return None,
            };
            Some((whom, read_bits(bits)?)).filter(|_| parts.next().is_none())
        };
        Self::checked(text.split(',').take(MOST_ENTRIES + 1).map(entry).collect::<Option<_>>()?)
    }

    /// Checks the rules of acl(5): each entry once and in order, the three of a mode, and a mask
    /// where a user or group is named. A list that a mode can express counts as none.
    fn checked(entries: Vec<(Whom, u32)>) -> Option<Self> {
        let has = |wanted: Whom| entries.iter().any(|(whom, _)| *whom == wanted);
        let is_sorted = entries.is_sorted_by(|(one, _), (next, _)| one < next);
        let is_whole = [Whom::Owner, Whom::OwningGroup, Whom::Others].into_iter().all(has);
        let names = entries.iter().any(|(whom, _)| matches!(whom, Whom::User(_) | Whom::Group(_)));
        let is_right = is_sorted && is_whole && (has(Whom::Mask) || !names) && entries.len() > 3;
        let is_right =
            is_right && entries.len() <= MOST_ENTRIES && entries.iter().all(|(_, bits)| *bits <= 7);
        is_right.then_some(Self(entries))
    }

    fn bits(&self, wanted: Whom) -> u32 {
        self.0.iter().find(|(whom, _)| *whom == wanted).map_or(0, |(_, bits)| *bits)
    }

    /// The permission bits of a file with this access list.
    pub fn mode(&self) -> u32 {
        self.bits(Whom::Owner) << 6 | self.bits(Whom::Mask) << 3 | self.bits(Whom::Others)
    }

    /// Permission bits that grant no user more than the list does, for use where there can be no
    /// list: the group and the others get only what every named entry gets, too.
    pub fn mode_without_it(&self) -> u32 {
        let mask = self.bits(Whom::Mask);
        let is_named = |whom: &Whom| matches!(whom, Whom::User(_) | Whom::Group(_));
        let named = self.0.iter().filter(|(whom, _)| is_named(whom));
        let least = named.fold(7, |least, (_, bits)| least & bits & mask);
        let group = self.bits(Whom::OwningGroup) & mask & least;
        self.bits(Whom::Owner) << 6 | group << 3 | self.bits(Whom::Others) & least
    }
}

fn read_bits(text: &str) -> Option<u32> {
    let [read, write, execute] = <[u8; 3]>::try_from(text.as_bytes()).ok()?;
    let bit = |found: u8, letter: u8, bit: u32| match found {
        b'-' => Some(0),
        found if found == letter => Some(bit),
        _ => None,
    };
    Some(bit(read, b'r', 4)? | bit(write, b'w', 2)? | bit(execute, b'x', 1)?)
}

/// The format of `getfacl --numeric`, with commas:
/// `user::rw-,user:1001:r--,group::---,mask::r--,other::---`.
impl fmt::Display for Acl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (whom, bits)) in self.0.iter().enumerate() {
            f.write_str(if place == 0 { "" } else { "," })?;
            match whom {
                Whom::Owner => f.write_str("user::"),
                Whom::User(id) => write!(f, "user:{id}:"),
                Whom::OwningGroup => f.write_str("group::"),
                Whom::Group(id) => write!(f, "group:{id}:"),
                Whom::Mask => f.write_str("mask::"),
                Whom::Others => f.write_str("other::"),
            }?;
            for (bit, letter) in [(4, "r"), (2, "w"), (1, "x")] {
                f.write_str(if bits & bit == 0 { "-" } else { letter })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LIST: &str = "user::rw-,user:1001:rw-,group::---,group:7:r--,mask::rw-,other::r--";

    #[test]
    fn a_list_reads_back_from_its_text_and_its_attribute() {
        let list = Acl::parse(LIST).unwrap();
        assert_eq!(list.to_string(), LIST);
        assert_eq!(Acl::from_attribute(&list.to_attribute()), Some(list.clone()));
        assert_eq!(list.mode(), 0o664);
    }

    #[test]
    fn what_the_kernel_would_not_take_is_no_list() {
        for text in [
            "",
            "user::rwx,group::r-x,other::r-x", // the same as a mode
            "user::rw-,user:1:rw-,group::---,other::---",
            "user::rw-,user:2:rw-,user:1:rw-,group::---,mask::rw-,other::---",
            "user::rw-,user:1:rw-,user:1:rw-,group::---,mask::rw-,other::---",
            "user::rw-,user:x:rw-,group::---,mask::rw-,other::---",
            "user::rw-,user:1:rws,group::---,mask::rw-,other::---",
            "user::rw-,user:1:rw-:,group::---,mask::rw-,other::---",
        ] {
            assert_eq!(Acl::parse(text), None, "{text}");
        }
        let bytes = Acl::parse(LIST).unwrap().to_attribute();
        for length in 0..bytes.len() {
            assert_eq!(Acl::from_attribute(&bytes[..length]), None, "{length}");
        }
    }

    #[test]
    fn a_mode_without_its_list_grants_no_more() {
        for (list, mode) in [
            (LIST, 0o604),
            ("user::rw-,user:1001:rw-,group::---,mask::rw-,other::---", 0o600),
            ("user::rwx,user:1001:---,group::r-x,mask::r-x,other::r-x", 0o700),
            ("user::rwx,group::rwx,mask::r-x,other::r--", 0o754),
        ] {
            assert_eq!(Acl::parse(list).unwrap().mode_without_it(), mode, "{list}");
        }
    }
}
