//! Reads skills by name. An unusable pattern is skipped and the rest of its skill is used: these
//! files were written for other programs with more features in their regular expressions.

use super::super::named::{
    ChangeScope, Enforcement, FileTriggers, NAME_LIMIT, NamedSkill, Priority, SkipConditions,
};
use super::super::source::Node;
use super::super::{Scope, Weight};
use super::values::{Fields, REMARKS, Reader};
use crate::document::json_type::JsonType;
use crate::hook::files::FilePattern;
use crate::hook::pattern::{Case, Pattern};

/// The skills of an object, in the order of the file.
pub(super) fn named_skills<'a>(reader: &mut Reader<'a>, node: Node<'a>) -> Vec<NamedSkill> {
    let Some(entries) = reader.object(node, &[]) else { return Vec::new() };
    let is_remark =
        |name: &str, node: Node<'_>| REMARKS.contains(&name) && node.kind() == JsonType::String;
    let skills = entries.0.iter().filter(|(name, node)| !is_remark(name, *node));
    skills.filter_map(|(name, node)| named_skill(reader, name, *node)).collect()
}

fn named_skill<'a>(reader: &mut Reader<'a>, name: &str, node: Node<'a>) -> Option<NamedSkill> {
    if name.trim().is_empty()
        || name.chars().count() > NAME_LIMIT
        || name.contains(char::is_control)
    {
        let limit = format!("1 to {NAME_LIMIT} characters, none of them a control character");
        reader.bad(node, format!("the name of a skill has {limit}"));
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
    let fields = reader.object(node, &known)?;
    let enforcement = word(reader, &fields, "enforcement", &Enforcement::WORDS);
    let priority = word(reader, &fields, "priority", &Priority::WORDS);
    reader.unused(&fields, "type", "`enforcement` says how a skill is announced");
    reader.unused_but(&fields, &[&known[..], &["type"]].concat());
    let skip = skip_conditions(reader, &fields);
    let (mut keywords, mut intents, mut files) = (Vec::new(), Vec::new(), None);
    if !matches!(reader.scope, Scope::Tool(_)) {
        (keywords, intents) = prompt_triggers(reader, &fields);
    }
    if reader.scope != Scope::Prompts {
        files = file_triggers(reader, &fields);
    }
    let has_triggers =
        ["promptTriggers", "fileTriggers"].iter().any(|name| fields.get(name).is_some());
    if reader.scope == Scope::All && !has_triggers {
        let message = "it has neither `promptTriggers` nor `fileTriggers`: no hook announces it";
        reader.find(node, Weight::Odd, message.to_owned());
    }
    let block_message = reader.optional(&fields, "blockMessage", Reader::owned);
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

fn prompt_triggers<'a>(
    reader: &mut Reader<'a>,
    fields: &Fields<'a>,
) -> (Vec<String>, Vec<Pattern>) {
    let triggers = reader.optional(fields, "promptTriggers", |reader, node| {
        let fields = reader.object(node, &["keywords", "intentPatterns"])?;
        let keywords = reader.list(&fields, "keywords", Reader::text);
        let keywords = keywords.iter().map(|keyword| keyword.to_lowercase()).collect();
        let intents = reader.list(&fields, "intentPatterns", |reader, node| {
            reader.pattern(node, Case::Insensitive)
        });
        Some((keywords, intents))
    });
    triggers.unwrap_or_default()
}

fn file_triggers<'a>(reader: &mut Reader<'a>, fields: &Fields<'a>) -> Option<FileTriggers> {
    reader.optional(fields, "fileTriggers", |reader, node| {
        let known = ["pathPatterns", "pathExclusions", "contentPatterns", "createOnly"];
        let fields = reader.object(node, &known)?;
        let glob =
            |reader: &mut Reader<'a>, node: Node<'a>| reader.glob(node, FilePattern::anywhere);
        let create_only = reader.optional(&fields, "createOnly", Reader::flag).unwrap_or(false);
        let contents = reader
            .list(&fields, "contentPatterns", |reader, node| reader.pattern(node, Case::Sensitive));
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

fn skip_conditions<'a>(reader: &mut Reader<'a>, fields: &Fields<'a>) -> SkipConditions {
    let conditions = reader.optional(fields, "skipConditions", |reader, node| {
        let fields = reader.object(node, &["sessionSkillUsed", "fileMarkers", "envOverride"])?;
        let why = "a hook does not know which skills a session has used";
        reader.unused(&fields, "sessionSkillUsed", why);
        Some(SkipConditions {
            variable: reader.optional(&fields, "envOverride", Reader::owned),
            markers: reader.list(&fields, "fileMarkers", Reader::owned),
        })
    });
    conditions.unwrap_or_default()
}

/// The value of one of a few words; the default where it is missing or unknown.
fn word<'a, T: Copy + Default>(
    reader: &mut Reader<'a>,
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
        reader.find(node, Weight::Odd, message);
    }
    found.unwrap_or_default()
}
