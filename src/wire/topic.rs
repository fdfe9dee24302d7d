//! What servers offer as three lists that change: the words for it, and counts of their changes
//! (server features, "List Changed Notification").

/// What a server declares, and announces changes of, as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    Tools,
    Prompts,
    /// Resources and their templates.
    Resources,
}

impl Topic {
    pub const ALL: [Self; 3] = [Self::Tools, Self::Prompts, Self::Resources];

    /// The notification that says that the list has changed.
    pub fn changed_method(self) -> &'static str {
        match self {
            Self::Tools => "notifications/tools/list_changed",
            Self::Prompts => "notifications/prompts/list_changed",
            Self::Resources => "notifications/resources/list_changed",
        }
    }

    /// The topic that a notification is about.
    pub fn changed_by(method: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.changed_method() == method)
    }
}

/// How often each list has become another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListCounts([u64; 3]);

impl ListCounts {
    pub fn of(&self, topic: Topic) -> u64 {
        self.0[topic as usize]
    }

    /// This list has become another.
    pub fn count(&mut self, topic: Topic) {
        self.0[topic as usize] += 1;
    }

    /// As if every list had become another.
    pub fn all_counted(mut self) -> Self {
        Topic::ALL.into_iter().for_each(|topic| self.count(topic));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_topic_has_its_own_words_and_its_own_count() {
        let mut counts = ListCounts::default();
        counts.count(Topic::Prompts);
        assert_eq!(Topic::ALL.map(|topic| counts.of(topic)), [0, 1, 0]);
        assert_eq!(Topic::ALL.map(|topic| counts.all_counted().of(topic)), [1, 2, 1]);
        for topic in Topic::ALL {
            assert_eq!(Topic::changed_by(topic.changed_method()), Some(topic));
        }
        assert_eq!(Topic::changed_by("notifications/progress"), None);
    }
}
