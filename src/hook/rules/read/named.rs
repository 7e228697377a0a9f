//! Reads skills by name. An unusable pattern is skipped and the rest of its skill is used: these
//! files were written for other programs with more features in their regular expressions.

use super::super::named::{
    ChangeScope, Enforcement, FileTriggers, NAME_LIMIT, NamedSkill, Priority, SkipConditions,
};
use super::super::source::Node;
use super::super::{Scope, Weight};
use super::{Fields, REMARKS, Reader};
use crate::document::json_type::JsonType;
use crate::hook::files::FilePattern;
use crate::hook::pattern::{Case, Pattern};

impl<'a> Reader<'a> {
    /// The skills of an object, in the order of the file.
    pub(super) fn named_skills(&mut self, node: Node<'a>) -> Vec<NamedSkill> {
        let Some(entries) = self.object(node, &[]) else { return Vec::new() };
        let is_remark =
            |name: &str, node: Node<'_>| REMARKS.contains(&name) && node.kind() == JsonType::String;
        let skills = entries.0.iter().filter(|(name, node)| !is_remark(name, *node));
        skills.filter_map(|(name, node)| self.named_skill(name, *node)).collect()
    }

    fn named_skill(&mut self, name: &str, node: Node<'a>) -> Option<NamedSkill> {
        if name.trim().is_empty()
            || name.chars().count() > NAME_LIMIT
            || name.contains(char::is_control)
        {
            let limit = format!("1 to {NAME_LIMIT} characters, none of them a control character");
            self.bad(node, format!("the name of a skill has {limit}"));
            return None;
        }
        let known = [
            "enforcement",
            "priority",
            "promptTriggers",
            "fileTriggers",
            "skipConditions",
            "blockMessage",
        ];
        let fields = self.object(node, &known)?;
        let enforcement = self.word(&fields, "enforcement", &Enforcement::WORDS);
        let priority = self.word(&fields, "priority", &Priority::WORDS);
        self.unused(&fields, "type", "`enforcement` says how a skill is announced");
        self.unused_but(&fields, &[&known[..], &["type"]].concat());
        let skip = self.skip_conditions(&fields);
        let (mut keywords, mut intents, mut files) = (Vec::new(), Vec::new(), None);
        if !matches!(self.scope, Scope::Tool(_)) {
            (keywords, intents) = self.prompt_triggers(&fields);
        }
        if self.scope != Scope::Prompts {
            files = self.file_triggers(&fields);
        }
        let has_triggers =
            ["promptTriggers", "fileTriggers"].iter().any(|name| fields.get(name).is_some());
        if self.scope == Scope::All && !has_triggers {
            let message =
                "it has neither `promptTriggers` nor `fileTriggers`: no hook announces it";
            self.find(node, Weight::Odd, message.to_owned());
        }
        let block_message = self.optional(&fields, "blockMessage", Self::owned);
        Some(NamedSkill {
            name: name.to_owned(),
            enforcement,
            priority,
            keywords,
            intents,
            files,
            skip,
            block_message,
        })
    }

    fn prompt_triggers(&mut self, fields: &Fields<'a>) -> (Vec<String>, Vec<Pattern>) {
        let triggers = self.optional(fields, "promptTriggers", |reader, node| {
            let fields = reader.object(node, &["keywords", "intentPatterns"])?;
            let keywords = reader.list(&fields, "keywords", Self::text);
            let keywords = keywords.iter().map(|keyword| keyword.to_lowercase()).collect();
            let intents = reader.list(&fields, "intentPatterns", |reader, node| {
                reader.pattern(node, Case::Insensitive)
            });
            Some((keywords, intents))
        });
        triggers.unwrap_or_default()
    }

    fn file_triggers(&mut self, fields: &Fields<'a>) -> Option<FileTriggers> {
        self.optional(fields, "fileTriggers", |reader, node| {
            let known = ["pathPatterns", "pathExclusions", "contentPatterns", "createOnly"];
            let fields = reader.object(node, &known)?;
            let glob = |reader: &mut Self, node: Node<'a>| reader.glob(node, FilePattern::anywhere);
            let create_only = reader.optional(&fields, "createOnly", Self::flag).unwrap_or(false);
            let contents = reader.list(&fields, "contentPatterns", |reader, node| {
                reader.pattern(node, Case::Sensitive)
            });
            // if no pattern is usable, none matches
            let named = fields.get("contentPatterns").and_then(Node::elements);
            if contents.is_empty() && named.is_some_and(|mut named| named.next().is_some()) {
                return None;
            }
            Some(FileTriggers {
                paths: reader.list(&fields, "pathPatterns", glob),
                exclusions: reader.list(&fields, "pathExclusions", glob),
                contents,
                changes: if create_only { ChangeScope::Creation } else { ChangeScope::All },
            })
        })
    }

    fn skip_conditions(&mut self, fields: &Fields<'a>) -> SkipConditions {
        let conditions = self.optional(fields, "skipConditions", |reader, node| {
            let fields =
                reader.object(node, &["sessionSkillUsed", "fileMarkers", "envOverride"])?;
            let why = "a hook does not know which skills a session has used";
            reader.unused(&fields, "sessionSkillUsed", why);
            Some(SkipConditions {
                variable: reader.optional(&fields, "envOverride", Self::owned),
                markers: reader.list(&fields, "fileMarkers", Self::owned),
            })
        });
        conditions.unwrap_or_default()
    }

    /// The value of one of a few words; the default where it is missing or unknown.
    fn word<T: Copy + Default>(
        &mut self,
        fields: &Fields<'a>,
        name: &str,
        words: &[(&str, T)],
    ) -> T {
        let Some(node) = fields.get(name) else { return T::default() };
        let text = node.text().unwrap_or_default();
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let message = format!("it must be one of {}; it is ignored", known.join(", "));
            self.find(node, Weight::Odd, message);
        }
        found.unwrap_or_default()
    }
}
