//! Reads rules from JSON and reports problems.

mod named;
mod values;

use std::borrow::Cow;

use self::values::is_bad;
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
/// Fields that are allowed everywhere: remarks.
const REMARKS: [&str; 4] = ["description", "comment", "_comment", "$schema"];

/// Reads all rules that `scope` needs.
pub(super) fn rules<'a>(
    source: &'a Source<'a>,
    scope: Scope<'a>,
) -> Result<ParsedRules, RuleFinding> {
    let mut reader = Reader { scope, findings: Vec::new(), unused: Vec::new() };
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
        rules.named = reader.named_skills(skills);
        reader.unused_but(&top, &[&PARTS[..], &["version", "notes", "error_recovery"]].concat());
    } else if !matches!(scope, Scope::Tool(_)) {
        rules.skills = reader.each(&top, "skills", Reader::skill);
    }
    if scope != Scope::Prompts {
        rules.transitions = reader.transitions(&top);
        rules.tool_rules = reader.each(&top, "tool_rules", Reader::tool_rule);
    }
    if scope == Scope::All {
        reader.look_for_loose_ends(&rules, &top);
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
    let mut findings = reader.findings;
    findings.extend(reader.unused.into_iter().map(Unused::finding));
    findings.sort_by_key(|finding| finding.line);
    Ok(ParsedRules { rules, findings, line: skills.unwrap_or(root).line() })
}

/// An object's fields, `null` ones left out.
struct Fields<'a>(Vec<(Cow<'a, str>, Node<'a>)>);

impl<'a> Fields<'a> {
    fn get(&self, name: &str) -> Option<Node<'a>> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, node)| *node)
    }
}

struct Reader<'a> {
    scope: Scope<'a>,
    findings: Vec<RuleFinding>,
    unused: Vec<Unused>,
}

/// A field for other programs that hooks ignore: reported once, however often it occurs.
struct Unused {
    name: String,
    why: &'static str,
    first: RuleFinding,
    count: usize,
}

impl Unused {
    fn finding(self) -> RuleFinding {
        let Self { name, why, first, count } = self;
        let times = if count == 1 { String::new() } else { format!(" ({count} times)") };
        RuleFinding { message: format!("`{name}` is not used{times}: {why}"), ..first }
    }
}

impl<'a> Reader<'a> {
    fn find(&mut self, node: Node<'a>, weight: Weight, message: String) {
        let (line, place) = (node.line(), node.place());
        self.findings.push(RuleFinding { line, place, message, weight });
    }

    /// Notes a field that is there and that hooks do not use.
    fn unused(&mut self, fields: &Fields<'a>, name: &str, why: &'static str) {
        let Some(node) = fields.get(name).filter(|_| self.scope == Scope::All) else { return };
        match self.unused.iter_mut().find(|unused| unused.name == name) {
            Some(unused) => unused.count += 1,
            None => {
                let (line, place) = (node.line(), node.place());
                let first =
                    RuleFinding { line, place, message: String::new(), weight: Weight::Odd };
                self.unused.push(Unused { name: name.to_owned(), why, first, count: 1 });
            }
        }
    }

    /// Notes all fields but these and remarks.
    fn unused_but(&mut self, fields: &Fields<'a>, known: &[&str]) {
        let others = fields.0.iter().map(|(name, _)| &**name);
        for name in others.filter(|name| !known.contains(name) && !REMARKS.contains(name)) {
            self.unused(fields, name, "hooks do not know it");
        }
    }

    fn bad(&mut self, node: Node<'a>, message: impl Into<String>) {
        self.find(node, Weight::Bad, message.into());
    }

    fn must_be<T>(&mut self, node: Node<'a>, wanted: JsonType) -> Option<T> {
        if node.kind() != wanted {
            return self.must_be_like(node, wanted.noun());
        }
        self.bad(node, "it has an escape in it that is half a character");
        None
    }

    fn must_be_like<T>(&mut self, node: Node<'a>, wanted: &str) -> Option<T> {
        self.bad(node, format!("it must be {wanted}, and this is {}", node.kind().noun()));
        None
    }

    fn skill(&mut self, node: Node<'a>, index: usize) -> Option<Skill> {
        let fields =
            self.object(node, &["skill", "activation_code", "phase", "trigger_conditions"])?;
        let skill = self.required(node, &fields, "skill", Self::owned);
        let code = self.required(node, &fields, "activation_code", |reader, node| {
            reader.name(node, "activation")
        });
        let phase = self.optional(&fields, "phase", Self::phase);
        self.unused(&fields, "priority", "the first skill whose conditions hold is activated");
        self.unused(&fields, "outputs", "`tool_rules` say which signals are given");
        let conditions = self.required(node, &fields, "trigger_conditions", |reader, node| {
            let fields = reader.object(node, &["user_patterns", "file_patterns", "file_exists"])?;
            reader.unused(
                &fields,
                "signals_detected",
                "`phase_transitions` say what follows a signal",
            );
            reader.unused(&fields, "phase_state", "no condition depends on the phase");
            let before = reader.count_bad();
            let prompts = reader.list(&fields, "user_patterns", |reader, node| {
                reader.pattern(node, Case::Insensitive)
            });
            let files: Vec<_> =
                reader.list(&fields, "file_patterns", Self::places).into_iter().flatten().collect();
            let exists = reader.list(&fields, "file_exists", Self::places);
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

    fn transitions(&mut self, top: &Fields<'a>) -> Vec<Transition> {
        let Some(node) = top.get("phase_transitions") else { return Vec::new() };
        let Some(entries) = self.object(node, &[]) else { return Vec::new() };
        let read = |&(ref signal, node): &(Cow<'a, str>, Node<'a>)| {
            self.unless_bad(|reader| {
                let signal = reader.as_name(node, "signal", signal);
                reader.transition(node, signal)
            })
        };
        entries.0.iter().filter(|(name, _)| !REMARKS.contains(&&**name)).filter_map(read).collect()
    }

    fn transition(&mut self, node: Node<'a>, signal: Option<Name>) -> Option<Transition> {
        let fields = self.object(node, &["next_activation", "auto_trigger", "delay_seconds"])?;
        let is_null =
            |(name, value): &(Cow<'a, str>, Node<'a>)| name == "next_activation" && value.is_null();
        if node.fields().is_some_and(|fields| fields.iter().any(is_null)) {
            return None; // the rule itself says that nothing follows
        }
        let next = self.required(node, &fields, "next_activation", |reader, node| {
            reader.name(node, "activation")
        });
        let automatic = self.optional(&fields, "auto_trigger", Self::flag).unwrap_or(false);
        let is_asked = CONFIRMATIONS
            .iter()
            .any(|name| fields.get(name).is_some_and(|node| node.value::<bool>() == Some(true)));
        let delay = self
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
                    reader
                        .bad(node, format!("it must be a number of seconds, 0 or more, and {why}"));
                }
                seconds
            })
            .unwrap_or(0.0);
        // an invalid signal opens no gate
        let gate = fields.get("approval_gate").filter(|gate| gate.value::<bool>() != Some(false));
        let gate = gate
            .map(|gate| gate.value::<String>().and_then(|name| Name::parse("signal", &name).ok()));
        let start = match gate {
            _ if !automatic || is_asked => Start::Suggested,
            None => Start::Automatic,
            Some(Some(signal)) => Start::Approved(signal),
            Some(None) => Start::Suggested,
        };
        Some(Transition { signal: signal?, next: next?, start, delay })
    }

    fn tool_rule(&mut self, node: Node<'a>, index: usize) -> Option<ToolRule> {
        let known = [
            "tool",
            "path_glob",
            "command_regex",
            "requires_signal",
            "emit_signal",
            "phase",
            "message",
        ];
        let fields = self.object(node, &known)?;
        let tool = self.required(node, &fields, "tool", Self::tool_pattern);
        if let (Some(tool), Scope::Tool(used)) = (&tool, self.scope)
            && !tool.may_match(&used.name)
        {
            return None;
        }
        let path = self.optional(&fields, "path_glob", |reader, node| {
            reader.glob(node, FilePattern::anywhere)
        });
        let command = self.optional(&fields, "command_regex", Self::command);
        if fields.get("path_glob").is_some() && fields.get("command_regex").is_some() {
            self.bad(
                node,
                "it has both `path_glob` and `command_regex`, and no tool is used on a file and a \
                 command at once",
            );
        }
        let requires =
            self.optional(&fields, "requires_signal", |reader, node| reader.name(node, "signal"));
        let emits =
            self.optional(&fields, "emit_signal", |reader, node| reader.name(node, "signal"));
        let phase = self.optional(&fields, "phase", Self::phase);
        let message = self.optional(&fields, "message", Self::owned);
        if ["emit_signal", "phase", "message"].iter().all(|name| fields.get(name).is_none()) {
            self.bad(
                node,
                "it does nothing: it has neither `emit_signal` nor `phase` nor `message`",
            );
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
    fn command(&mut self, node: Node<'a>) -> Option<Option<Pattern>> {
        let Scope::Tool(used) = self.scope else {
            return self.pattern(node, Case::Sensitive).map(Some);
        };
        let text = self.text(node)?;
        let command = Subject::of(used.command.as_deref().unwrap_or_default());
        let parsed = Pattern::parse_for(&command, &text, Case::Sensitive);
        let parsed = parsed.map_err(|why| self.bad(node, is_bad(&text, why))).ok()?;
        Some(parsed.filter(|_| used.command.is_some()))
    }

    /// Names separated by `|`, or a regular expression; `*` means "any" in hook settings.
    fn tool_pattern(&mut self, node: Node<'a>) -> Option<ToolPattern> {
        let text = self.text(node)?;
        let is_plain = |name: &str| {
            !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-')
        };
        if text == "*" {
            Some(ToolPattern::Any)
        } else if text.split('|').all(is_plain) {
            Some(ToolPattern::OneOf(text.into_owned()))
        } else {
            let parsed = Pattern::parse(&format!("^(?:{text})$"), Case::Sensitive);
            self.checked(node, &text, parsed).map(ToolPattern::Matching)
        }
    }

    /// Reports codes that nothing activates: most likely misspelt.
    fn look_for_loose_ends(&mut self, rules: &Rules, top: &Fields<'a>) {
        let Some(transitions) = top.get("phase_transitions").and_then(Node::fields) else { return };
        for transition in &rules.transitions {
            let is_known = rules.skills.iter().any(|skill| skill.code == transition.next);
            let node = transitions
                .iter()
                .find(|(name, _)| name == transition.signal.as_str())
                .map(|(_, node)| *node);
            if let Some(node) = node.filter(|_| !is_known) {
                let message = format!(
                    "no skill that can be used has the activation code {}",
                    transition.next
                );
                self.find(node, Weight::Odd, message);
            }
        }
    }
}
