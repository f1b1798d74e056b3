//! The name of the object that a new token becomes: made of its owner and its name, so that the API server decides who comes first
//! of two that want to be called the same.
//!
//! Pure. It must not know what is there.

use sha2::{Digest, Sha256};

use crate::api::Owner;

/// How many names there are for one owner and name: a token that is renamed keeps the object's name, and its former name is free.
pub(super) const SLOTS: u8 = 8;

/// Of what people call it, so many letters are kept.
const READABLE: usize = 38;

/// Hexadecimal digits of the hash: 96 bits.
const DIGITS: usize = 24;

/// A DNS label: what can be read of the name, and a hash.
pub(super) fn object_name(owner: &Owner, display_name: &str, slot: u8) -> String {
    let mut hasher = Sha256::new();
    for part in [&*owner.text(), display_name] {
        // With its length, so that no letter can move from one to the other unseen.
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.update([slot]);
    let hash: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let readable = readable(display_name);
    let start = if readable.is_empty() { "pat" } else { &readable };
    format!("{start}-{}", &hash[..DIGITS])
}

fn readable(text: &str) -> String {
    let mut name = String::new();
    for letter in text.chars() {
        if name.len() == READABLE {
            break;
        }
        match letter.to_ascii_lowercase() {
            letter if letter.is_ascii_alphanumeric() => name.push(letter),
            _ if name.is_empty() || name.ends_with('-') => {}
            _ => name.push('-'),
        }
    }
    name.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::api::OwnerKind;

    fn owner(kind: OwnerKind, name: &str) -> Owner {
        Owner { kind, name: name.into() }
    }

    #[test]
    fn it_can_be_read_and_differs_by_owner_name_and_slot() {
        let jane = owner(OwnerKind::User, "jane@example.com");
        let name = object_name(&jane, "CI: deploy (prod)", 0);
        assert!(name.starts_with("ci-deploy-prod-") && name.len() == 15 + DIGITS, "{name}");
        assert!(object_name(&jane, "日本", 0).starts_with("pat-"));
        let account = owner(OwnerKind::VirtualAccount, "jane@example.com");
        let names = [
            name,
            object_name(&jane, "CI: deploy (prod)", 1),
            object_name(&jane, "CI: deploy (prod", 0),
            object_name(&account, "CI: deploy (prod)", 0),
            object_name(&owner(OwnerKind::User, "jane@example.comCI: "), "deploy (prod)", 0),
        ];
        let different: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len(), "{names:?}");
    }

    proptest! {
        #[test]
        fn it_is_a_dns_label_whatever_people_write(text in "\\PC{1,128}", slot in 0_u8..SLOTS) {
            let name = object_name(&owner(OwnerKind::User, "a"), &text, slot);
            let is_label = |name: &str| {
                name.len() <= 63
                    && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
                    && !name.starts_with('-') && !name.ends_with('-')
            };
            prop_assert!(is_label(&name), "{name}");
        }
    }
}
