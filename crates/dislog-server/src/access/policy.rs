//! The rules: a Casbin model and policy, checked when they are read.
//!
//! Casbin skips lines that it cannot read, stops a program over an effect that it does not know,
//! and finds other mistakes when it is first asked. Rules that say less than somebody wrote are a
//! hole, so every line is checked here first, and a file with a mistake is refused as a whole.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use casbin::function_map::{OperatorFunction, dynamic_to_str};
use casbin::{
    CoreApi as _, DefaultModel, EffectKind, Effector, EffectorStream, Enforcer, Model as _,
    StringAdapter,
};
use futures_util::FutureExt as _;

use super::selection::Selection;
use super::{ANONYMOUS, Action};

/// The model unless a file says otherwise. A subject `*` is whoever has proved who they are.
pub(crate) const DEFAULT_MODEL: &str = r#"
[request_definition]
r = sub, obj, act

[policy_definition]
p = sub, obj, act, eft

[role_definition]
g = _, _

[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))

[matchers]
m = (g(r.sub, p.sub) || p.sub == "*" && r.sub != "anonymous") \
    && topicMatch(r.obj, p.obj) && (p.act == "*" || r.act == p.act)
"#;

/// The effects that Casbin knows, as it writes them itself.
const EFFECTS: [&str; 4] = [
    ALLOW_ONLY,
    "some(where (p_eft == allow)) && !some(where (p_eft == deny))",
    "!some(where (p_eft == deny))",
    "priority(p_eft) || deny",
];

/// The effect without rules that deny.
const ALLOW_ONLY: &str = "some(where (p_eft == allow))";

/// A rule about this object is about every object: models that compare objects as they are, as the
/// book's does, have no other way to say it.
const EVERY_OBJECT: &str = "*";

/// The most rules. By a model of one's own, each costs some microseconds whenever a decision is
/// made for the first time.
const RULES_MAX: usize = 10_000;

/// Rules, as they were read.
pub(crate) struct Policy {
    judge: Judge,
    model: String,
    /// The lines in Casbin's form, with the numbers they have in the file.
    lines: Vec<(usize, String)>,
    is_literal: bool,
}

/// What Casbin is asked with.
enum Judge {
    /// All rules, for each question: only their own model knows which are about it.
    Whole(Enforcer),
    /// Those that a question is about.
    Selected(Selection),
}

/// What rules say, and which of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Explained {
    pub(crate) allowed: bool,
    /// The rules that apply, those that deny first.
    pub(crate) rules: Vec<String>,
}

impl Policy {
    /// Reads rules; without a model, by the [`DEFAULT_MODEL`]. The error names the line.
    pub(crate) fn parse(model: Option<&str>, policy: &str) -> Result<Policy, String> {
        let is_own_model = model.is_some();
        let model = model.unwrap_or(DEFAULT_MODEL);
        let shape = Shape::of(model)?;
        let lines = shape.lines(policy, !is_own_model)?;
        let judge = match is_own_model {
            true => Judge::Whole(enforcer(model, &lines)?),
            false => Judge::Selected(Selection::of(&lines)?),
        };
        let literal = model.replace(char::is_whitespace, "").contains("r.obj==p.obj");
        let is_literal = literal && shape.effect == ALLOW_ONLY;
        if let Judge::Whole(enforcer) = &judge {
            // What is wrong with a matcher is found out only by asking.
            let asked = enforcer.enforce(("nobody", "nothing", "none"));
            asked.map_err(|error| format!("model.conf cannot be used: {error}"))?;
        }
        Ok(Policy { judge, model: model.to_owned(), lines, is_literal })
    }

    /// How many rules there are.
    pub(crate) fn rules(&self) -> usize {
        self.lines.len()
    }

    /// Whether a decision takes microseconds for each rule that there is.
    pub(crate) fn asks_all_rules(&self) -> bool {
        matches!(self.judge, Judge::Whole(_))
    }

    /// Whether `subject` may do `action` to `object`.
    pub(crate) fn allows(&self, subject: &str, action: Action, object: &str) -> bool {
        match &self.judge {
            Judge::Whole(enforcer) => self.ask(enforcer, subject, action, object),
            Judge::Selected(selection) => selection.allows(subject, action, object),
        }
    }

    /// The same, with the rules that apply. Takes longer still.
    pub(crate) fn explain(&self, subject: &str, action: Action, object: &str) -> Explained {
        let allowed = self.allows(subject, action, object);
        let mut found = match &self.judge {
            Judge::Whole(_) => self.found(subject, action, object),
            Judge::Selected(selection) => selection.found(subject, action, object),
        };
        found.sort_by_key(|(at, is_denial)| (!is_denial, *at));
        let rules: Vec<&(usize, String)> =
            self.lines.iter().filter(|(_, line)| line.starts_with("p,")).collect();
        let rule = |&(at, _): &(usize, bool)| {
            rules.get(at).map(|(line, text)| format!("policy.csv:{line}: {text}"))
        };
        Explained { allowed, rules: found.iter().filter_map(rule).collect() }
    }

    /// Which rules apply, and whether they deny.
    fn found(&self, subject: &str, action: Action, object: &str) -> Vec<(usize, bool)> {
        let Ok(mut asked) = enforcer(&self.model, &self.lines) else { return Vec::new() };
        let found = Found::default();
        asked.set_effector(Box::new(found.clone()));
        self.ask(&asked, subject, action, object);
        let found = found.0.lock().unwrap_or_else(PoisonError::into_inner);
        found.iter().map(|(at, kind)| (*at, *kind == EffectKind::Deny)).collect()
    }

    fn ask(&self, enforcer: &Enforcer, subject: &str, action: Action, object: &str) -> bool {
        let enforce = |object: &str| enforced(enforcer, subject, action, object);
        enforce(object) || self.is_literal && enforce(EVERY_OBJECT)
    }
}

/// What Casbin says.
pub(super) fn enforced(enforcer: &Enforcer, subject: &str, action: Action, object: &str) -> bool {
    enforcer.enforce((subject, object, action.name())).unwrap_or_else(|error| {
        tracing::error!(%error, "the rules cannot be applied: denied");
        false
    })
}

/// What a model says of the lines that go with it.
struct Shape {
    /// The fields of `p`.
    fields: Vec<String>,
    /// The fields of `g`, if there are roles.
    role_fields: Option<usize>,
    effect: String,
}

impl Shape {
    fn of(text: &str) -> Result<Shape, String> {
        let model = DefaultModel::from_str(text).now_or_never().expect("a text is read at once");
        let model = model.map_err(|error| format!("model.conf cannot be read: {error}"))?;
        let definition = |section: &str| {
            let assertion = model.get_model().get(section)?.get(section)?;
            Some((assertion.tokens.clone(), assertion.value.clone()))
        };
        let missing = |section: &str| format!("model.conf has no `{section} = …`");
        let (request, _) = definition("r").ok_or_else(|| missing("r"))?;
        if request.len() != 3 {
            return Err("model.conf: r must have three fields, as in `r = sub, obj, act`".into());
        }
        let (fields, _) = definition("p").ok_or_else(|| missing("p"))?;
        let (_, effect) = definition("e").ok_or_else(|| missing("e"))?;
        definition("m").ok_or_else(|| missing("m"))?;
        if !EFFECTS.contains(&effect.as_str()) {
            return Err(format!("model.conf: {effect:?} is not an effect that Casbin knows"));
        }
        let fields = fields.iter().map(|field| field.trim_start_matches("p_").to_owned());
        let role_fields = definition("g").map(|(_, value)| value.matches('_').count());
        Ok(Shape { fields: fields.collect(), role_fields, effect })
    }

    /// The lines of a policy, checked. By the default model, rules without an effect allow.
    fn lines(&self, policy: &str, is_default: bool) -> Result<Vec<(usize, String)>, String> {
        let (mut lines, mut seen) = (Vec::new(), HashSet::new());
        for (number, line) in (1..).zip(policy.lines()) {
            let line = line.trim().trim_start_matches('\u{feff}');
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what: String| format!("policy.csv line {number}: {what}");
            let fields = fields(line).map_err(wrong)?;
            let checked = match fields.split_first() {
                Some((&"p", rule)) => self.rule(rule, is_default),
                Some((&"g", role)) => self.role(role),
                _ => Err("a line begins with `p,` (a rule) or `g,` (who has which role)".into()),
            };
            let checked = checked.map_err(wrong)?;
            // Casbin keeps a rule once: so the rules here are numbered as they are there.
            if seen.insert(checked.clone()) {
                lines.push((number, checked));
            }
            if lines.len() > RULES_MAX {
                return Err(wrong(format!("there are more than {RULES_MAX} rules")));
            }
        }
        Ok(lines)
    }

    fn rule(&self, rule: &[&str], is_default: bool) -> Result<String, String> {
        let mut rule = rule.to_vec();
        if is_default && rule.len() + 1 == self.fields.len() {
            rule.push("allow");
        }
        if rule.len() != self.fields.len() || rule.contains(&"") {
            let expected = self.fields.join(", ");
            return Err(format!("a rule is `p, {expected}`; this one has {} fields", rule.len()));
        }
        for (name, value) in self.fields.iter().zip(&rule) {
            let known: &[&str] = match name.as_str() {
                "eft" => &["allow", "deny"],
                "act" if is_default => &["produce", "consume", "admin", "*"],
                _ => continue,
            };
            if !known.contains(value) {
                return Err(format!("{value:?} is no {name}: there are {}", known.join(", ")));
            }
        }
        Ok(format!("p, {}", rule.join(", ")))
    }

    fn role(&self, role: &[&str]) -> Result<String, String> {
        let expected = self.role_fields.ok_or("the model has no roles: no `g = _, _`")?;
        if role.len() != expected || role.contains(&"") {
            return Err(format!(
                "a role is given with {expected} fields, as in `g, alice, writers`"
            ));
        }
        if role.first() == Some(&ANONYMOUS) {
            return Err("nobody in particular cannot have a role".to_owned());
        }
        Ok(format!("g, {}", role.join(", ")))
    }
}

/// The fields of a line. Names and patterns have no commas, so that quoting only has to be undone.
fn fields(line: &str) -> Result<Vec<&str>, String> {
    let fields = line.split(',').map(|field| {
        let field = field.trim();
        let bare = field.strip_prefix('"').and_then(|field| field.strip_suffix('"'));
        bare.unwrap_or(field)
    });
    let fields: Vec<&str> = fields.collect();
    match fields.iter().find(|field| field.contains(['"', '\\'])) {
        Some(field) => Err(format!("{field:?} has a quote or a backslash, which no name has")),
        None => Ok(fields),
    }
}

/// Casbin, with a model and lines.
pub(super) fn enforcer(model: &str, lines: &[(usize, String)]) -> Result<Enforcer, String> {
    let text: String = lines.iter().map(|(_, line)| format!("{line}\n")).collect();
    let making = async {
        let model = DefaultModel::from_str(model).await?;
        let mut enforcer = Enforcer::new(model, StringAdapter::new(text)).await?;
        enforcer.add_function(
            "topicMatch",
            OperatorFunction::Arg2(|name, pattern| {
                is_match(&dynamic_to_str(&name), &dynamic_to_str(&pattern)).into()
            }),
        );
        Ok(enforcer)
    };
    let made: casbin::Result<Enforcer> = making.now_or_never().expect("texts are read at once");
    made.map_err(|error| format!("the rules cannot be used: {error}"))
}

/// Whether a name is one that the pattern means: `*` stands for any characters, or none.
pub(super) fn is_match(name: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Notes which rules apply, in place of deciding.
#[derive(Clone, Default)]
struct Found(Arc<Mutex<Vec<(usize, EffectKind)>>>);

impl Effector for Found {
    fn new_stream(&self, _: &str, _: usize) -> Box<dyn EffectorStream> {
        Box::new(FoundInTurn { found: self.clone(), at: 0 })
    }
}

struct FoundInTurn {
    found: Found,
    at: usize,
}

impl EffectorStream for FoundInTurn {
    fn next(&self) -> bool {
        false
    }

    fn push_effect(&mut self, effect: EffectKind) -> bool {
        if effect != EffectKind::Indeterminate {
            let mut found = self.found.0.lock().unwrap_or_else(PoisonError::into_inner);
            found.push((self.at, effect));
        }
        self.at += 1;
        false
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
