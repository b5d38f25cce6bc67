//! A value of a vector file that may be a bare word instead of a table or a list. Unlike serde's
//! untagged enums this keeps the error text of the table.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A word, or the value proper.
pub(super) enum WordOr<T> {
    /// A bare word.
    Word(String),
    /// The table or the list.
    Value(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for WordOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either(PhantomData))
    }
}

struct Either<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
    type Value = WordOr<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a word, a table or a list")
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<WordOr<T>, E> {
        Ok(WordOr::Word(word.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WordOr<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(WordOr::Value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<WordOr<T>, A::Error> {
        T::deserialize(SeqAccessDeserializer::new(seq)).map(WordOr::Value)
    }
}
