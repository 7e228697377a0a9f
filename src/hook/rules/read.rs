//! Reads rules from JSON and reports problems.

mod named;
mod values;

use std::borrow::Cow;

use self::named::named_skills;
use self::values::{Fields, REMARKS, Reader, is_bad};
use super::source::{Node, Source};
use super::{
    Form, Object, ParsedRules, RuleFinding, Rules, Scope, Skill, Start, ToolPattern, ToolRule,
    Transition, Weight,
};
use crate::document::json_type::JsonType;
use crate::hook::files::FilePattern;
use crate::hook::pattern::{Case, Pattern, Subject};
use crate::name::Name;

/// The longest delay, in seconds: some 30 years.
const DELAY_LIMIT: f64 = 1e9;
/// The parts of a file.
const PARTS: [&str; 3] = ["skills", "phase_transitions", "tool_rules"];
/// Fields of a transition that keep it from being automatic.
const CONFIRMATIONS: [&str; 3] =
    ["requires_user_confirmation", "requires_user_command", "requires_human_review"];

/// Reads all rules that `scope` needs.
pub(super) fn rules<'a>(
    source: &'a Source<'a>,
    scope: Scope<'a>,
) -> Result<ParsedRules, RuleFinding> {
    let mut reader = Reader::of(scope);
    let root = source.root();
    let Some(top) = reader.object(root, &PARTS) else {
        return Err(RuleFinding {
            line: root.line(),
            place: String::new(),
            message: format!("the rules must be an object, and this is {}", root.kind().noun()),
            weight: Weight::Bad,
        });
    };
    let skills = top.get("skills");
    let mut rules = Rules::default();
    if let Some(skills) = skills.filter(|skills| skills.kind() == JsonType::Object) {
        rules.form = Form::Object;
        rules.named = named_skills(&mut reader, skills);
        reader.unused_but(&top, &[&PARTS[..], &["version", "notes", "error_recovery"]].concat());
    } else if !matches!(scope, Scope::Tool(_)) {
        rules.skills = reader.each(&top, "skills", skill);
    }
    if scope != Scope::Prompts {
        rules.transitions = transitions(&mut reader, &top);
        rules.tool_rules = reader.each(&top, "tool_rules", tool_rule);
    }
    if scope == Scope::All {
        look_for_loose_ends(&mut reader, &rules, &top);
        reader.unused(
            &top,
            "error_recovery",
            "`recover retry` and `recover handle` take options instead",
        );
        if top.0.iter().all(|(name, _)| !PARTS.contains(&&**name)) && !top.0.is_empty() {
            reader.find(
                root,
                Weight::Odd,
                format!("it has none of the fields {}", PARTS.join(", ")),
            );
        }
    }
    Ok(ParsedRules { rules, findings: reader.into_findings(), line: skills.unwrap_or(root).line() })
}

fn skill<'a>(reader: &mut Reader<'a>, node: Node<'a>, index: usize) -> Option<Skill> {
    let fields =
        reader.object(node, &["skill", "activation_code", "phase", "trigger_conditions"])?;
    let skill = reader.required(node, &fields, "skill", Reader::owned);
    let code = reader
        .required(node, &fields, "activation_code", |reader, node| reader.name(node, "activation"));
    let phase = reader.optional(&fields, "phase", Reader::phase);
    reader.unused(&fields, "priority", "the first skill whose conditions hold is activated");
    reader.unused(&fields, "outputs", "`tool_rules` say which signals are given");
    let conditions = reader.required(node, &fields, "trigger_conditions", |reader, node| {
        let fields = reader.object(node, &["user_patterns", "file_patterns", "file_exists"])?;
        reader.unused(&fields, "signals_detected", "`phase_transitions` say what follows a signal");
        reader.unused(&fields, "phase_state", "no condition depends on the phase");
        let before = reader.count_bad();
        let prompts = reader
            .list(&fields, "user_patterns", |reader, node| reader.pattern(node, Case::Insensitive));
        let files: Vec<_> =
            reader.list(&fields, "file_patterns", places).into_iter().flatten().collect();
        let exists = reader.list(&fields, "file_exists", places);
        if prompts.is_empty()
            && files.is_empty()
            && exists.is_empty()
            && reader.count_bad() == before
        {
            reader.bad(
                node,
                "it has neither a pattern in `user_patterns` nor one in `file_patterns`",
            );
        }
        Some((prompts, files, exists))
    });
    let (prompts, files, exists) = conditions?;
    Some(Skill { index, skill: skill?, code: code?, phase, prompts, files, exists })
}

/// A required file and its possible places: as named, below `docs/`, and with `.md`.
fn places<'a>(reader: &mut Reader<'a>, node: Node<'a>) -> Option<Vec<FilePattern>> {
    let as_named = reader.glob(node, FilePattern::under_the_root)?;
    let name = reader.text(node)?;
    let others = [format!("docs/{name}"), format!("{name}.md")];
    let others = others.iter().filter_map(|name| FilePattern::under_the_root(name).ok());
    Some(std::iter::once(as_named).chain(others).collect())
}

fn transitions<'a>(reader: &mut Reader<'a>, top: &Fields<'a>) -> Vec<Transition> {
    let Some(node) = top.get("phase_transitions") else { return Vec::new() };
    let Some(entries) = reader.object(node, &[]) else { return Vec::new() };
    let read = |&(ref signal, node): &(Cow<'a, str>, Node<'a>)| {
        reader.unless_bad(|reader| {
            let signal = reader.as_name(node, "signal", signal);
            transition(reader, node, signal)
        })
    };
    entries.0.iter().filter(|(name, _)| !REMARKS.contains(&&**name)).filter_map(read).collect()
}

fn transition<'a>(
    reader: &mut Reader<'a>,
    node: Node<'a>,
    signal: Option<Name>,
) -> Option<Transition> {
    let fields = reader.object(node, &["next_activation", "auto_trigger", "delay_seconds"])?;
    let is_null =
        |(name, value): &(Cow<'a, str>, Node<'a>)| name == "next_activation" && value.is_null();
    if node.fields().is_some_and(|fields| fields.iter().any(is_null)) {
        return None; // the rule itself says that nothing follows
    }
    let next = reader
        .required(node, &fields, "next_activation", |reader, node| reader.name(node, "activation"));
    let automatic = reader.optional(&fields, "auto_trigger", Reader::flag).unwrap_or(false);
    let is_asked = CONFIRMATIONS
        .iter()
        .any(|name| fields.get(name).is_some_and(|node| node.value::<bool>() == Some(true)));
    let delay = reader
        .optional(&fields, "delay_seconds", |reader, node| {
            if node.kind() != JsonType::Number {
                return reader.must_be_like(node, "a number of seconds, 0 or more");
            }
            let seconds =
                node.value::<f64>().filter(|seconds| (0.0..=DELAY_LIMIT).contains(seconds));
            if seconds.is_none() {
                let why = if node.is_negative() {
                    "it is negative".to_owned()
                } else {
                    format!("it is over {DELAY_LIMIT}")
                };
                reader.bad(node, format!("it must be a number of seconds, 0 or more, and {why}"));
            }
            seconds
        })
        .unwrap_or(0.0);
    // an invalid signal opens no gate
    let gate = fields.get("approval_gate").filter(|gate| gate.value::<bool>() != Some(false));
    let gate =
        gate.map(|gate| gate.value::<String>().and_then(|name| Name::parse("signal", &name).ok()));
    let start = match gate {
        _ if !automatic || is_asked => Start::Suggested,
        None => Start::Automatic,
        Some(Some(signal)) => Start::Approved(signal),
        Some(None) => Start::Suggested,
    };
    Some(Transition { signal: signal?, next: next?, start, delay })
}

fn tool_rule<'a>(reader: &mut Reader<'a>, node: Node<'a>, index: usize) -> Option<ToolRule> {
    let known = [
        "tool",
        "path_glob",
        "command_regex",
        "requires_signal",
        "emit_signal",
        "phase",
        "message",
    ];
    let fields = reader.object(node, &known)?;
    let tool = reader.required(node, &fields, "tool", tool_pattern);
    if let (Some(tool), Scope::Tool(used)) = (&tool, reader.scope)
        && !tool.may_match(&used.name)
    {
        return None;
    }
    let path = reader
        .optional(&fields, "path_glob", |reader, node| reader.glob(node, FilePattern::anywhere));
    let command = reader.optional(&fields, "command_regex", command);
    if fields.get("path_glob").is_some() && fields.get("command_regex").is_some() {
        reader.bad(
            node,
            "it has both `path_glob` and `command_regex`, and no tool is used on a file and a \
             command at once",
        );
    }
    let requires =
        reader.optional(&fields, "requires_signal", |reader, node| reader.name(node, "signal"));
    let emits = reader.optional(&fields, "emit_signal", |reader, node| reader.name(node, "signal"));
    let phase = reader.optional(&fields, "phase", Reader::phase);
    let message = reader.optional(&fields, "message", Reader::owned);
    if ["emit_signal", "phase", "message"].iter().all(|name| fields.get(name).is_none()) {
        reader.bad(node, "it does nothing: it has neither `emit_signal` nor `phase` nor `message`");
    }
    let object = match (path, command) {
        (Some(path), _) => Object::Path(path),
        (None, Some(Some(command))) => Object::Command(command),
        (None, Some(None)) => return None,
        (None, None) => Object::Any,
    };
    Some(ToolRule { index, tool: tool?, object, requires, emits, phase, message })
}

/// A pattern of commands; `Some(None)` if it is right, and the event's command cannot match.
fn command<'a>(reader: &mut Reader<'a>, node: Node<'a>) -> Option<Option<Pattern>> {
    let Scope::Tool(used) = reader.scope else {
        return reader.pattern(node, Case::Sensitive).map(Some);
    };
    let text = reader.text(node)?;
    let command = Subject::of(used.command.as_deref().unwrap_or_default());
    let parsed = Pattern::parse_for(&command, &text, Case::Sensitive);
    let parsed = parsed.map_err(|why| reader.bad(node, is_bad(&text, why))).ok()?;
    Some(parsed.filter(|_| used.command.is_some()))
}

/// Names separated by `|`, or a regular expression; `*` means "any" in hook settings.
fn tool_pattern<'a>(reader: &mut Reader<'a>, node: Node<'a>) -> Option<ToolPattern> {
    let text = reader.text(node)?;
    let is_plain = |name: &str| {
        !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-')
    };
    if text == "*" {
        Some(ToolPattern::Any)
    } else if text.split('|').all(is_plain) {
        Some(ToolPattern::OneOf(text.into_owned()))
    } else {
        let parsed = Pattern::parse(&format!("^(?:{text})$"), Case::Sensitive);
        reader.checked(node, &text, parsed).map(ToolPattern::Matching)
    }
}

/// Reports codes that nothing activates: most likely misspelt.
fn look_for_loose_ends<'a>(reader: &mut Reader<'a>, rules: &Rules, top: &Fields<'a>) {
    let Some(transitions) = top.get("phase_transitions").and_then(Node::fields) else { return };
    for transition in &rules.transitions {
        let is_known = rules.skills.iter().any(|skill| skill.code == transition.next);
        let node = transitions
            .iter()
            .find(|(name, _)| name == transition.signal.as_str())
            .map(|(_, node)| *node);
        if let Some(node) = node.filter(|_| !is_known) {
            let message =
                format!("no skill that can be used has the activation code {}", transition.next);
            reader.find(node, Weight::Odd, message);
        }
    }
}
