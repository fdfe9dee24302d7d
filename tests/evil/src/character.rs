//! What one server is told to be: its faults, and when it has them.

use std::{fs::OpenOptions, io::Write, path::Path};

use crate::{
    Outcome,
    fault::{Condition, Fault},
};

/// The faults of a server and the conditions they stand under. The default is a good server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Character {
    pub faults: Vec<Fault>,
    pub conditions: Vec<Condition>,
}

impl Character {
    /// A server that does nothing wrong.
    pub fn good() -> Character {
        Character::default()
    }

    /// Reads words as [`Self::words`] writes them.
    pub fn read<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Character, String> {
        let mut character = Character::good();
        for word in words {
            if let Some(fault) = Fault::read(word) {
                character.faults.push(fault?);
            } else if let Some(condition) = Condition::read(word) {
                character.conditions.push(condition?);
            } else {
                return Err(format!("{word} is no fault that this server knows"));
            }
        }
        Ok(character)
    }

    /// The arguments by which a program is told to be this.
    pub fn words(&self) -> Vec<String> {
        let faults = self.faults.iter().map(Fault::to_string);
        faults.chain(self.conditions.iter().map(Condition::to_string)).collect()
    }

    pub fn with(mut self, fault: Fault) -> Character {
        self.faults.push(fault);
        self
    }

    pub fn when(mut self, condition: Condition) -> Character {
        self.conditions.push(condition);
        self
    }

    /// What the first condition of a kind says.
    pub fn said<'a, T>(&'a self, kind: impl Fn(&'a Condition) -> Option<T>) -> Option<T> {
        self.conditions.iter().find_map(kind)
    }

    pub fn name(&self) -> &str {
        self.said(|one| match one {
            Condition::Name(name) => Some(name.as_str()),
            _ => None,
        })
        .unwrap_or("evil")
    }

    /// Whether it misbehaves now at all.
    pub fn is_evil_now(&self) -> bool {
        let switch = self.said(|one| match one {
            Condition::While(file) => Some(file),
            _ => None,
        });
        switch.is_none_or(|file| file.exists())
    }

    /// The faults that it has now, whatever it is called for.
    pub fn now(&self) -> &[Fault] {
        if self.is_evil_now() { &self.faults } else { &[] }
    }

    /// The faults that its call of this number, the first being 1, is treated with.
    pub fn towards(&self, number: u64) -> &[Fault] {
        let meant = self.conditions.iter().all(|one| match one {
            Condition::Every(every) => number.is_multiple_of((*every).max(1)),
            Condition::After(after) => number > *after,
            _ => true,
        });
        if meant { self.now() } else { &[] }
    }

    /// Notes that a call with this nonce was begun.
    pub fn note_call(&self, nonce: &str) -> Outcome<()> {
        let journal = self.said(|one| match one {
            Condition::Journal(file) => Some(file),
            _ => None,
        });
        journal.map_or(Ok(()), |file| append(file, nonce))
    }

    /// Notes that it was started.
    pub fn note_start(&self) -> Outcome<()> {
        let starts = self.said(|one| match one {
            Condition::Starts(file) => Some(file),
            _ => None,
        });
        starts.map_or(Ok(()), |file| append(file, &std::process::id().to_string()))
    }
}

/// One line by one write, so that several processes may share the file and a kill tears none.
fn append(file: &Path, line: &str) -> Outcome<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    Ok(file.write_all(format!("{line}\n").as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_read_as_it_is_written() {
        let words = ["exit-every=100", "dup-reply", "every=3", "name=shadow"];
        let character = Character::read(words).unwrap();
        assert_eq!(character.words(), words);
        assert_eq!(character.name(), "shadow");
        assert!(Character::read(["good-will"]).is_err());
    }

    #[test]
    fn only_calls_that_are_meant_are_treated_badly() {
        let character = Character::read(["blackhole", "every=3", "after=4"]).unwrap();
        let bad: Vec<u64> = (1..10).filter(|n| !character.towards(*n).is_empty()).collect();
        assert_eq!(bad, [6, 9]);
    }

    #[test]
    fn it_is_good_while_its_switch_is_missing() {
        let file = std::env::temp_dir().join(format!("evil-switch-{}", std::process::id()));
        let character =
            Character::good().with(Fault::Blackhole).when(Condition::While(file.clone()));
        assert_eq!(character.towards(1), []);
        std::fs::write(&file, "").unwrap();
        assert_eq!(character.towards(1), [Fault::Blackhole]);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(character.now(), []);
    }
}
