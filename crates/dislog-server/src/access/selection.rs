//! Rules by the default model, of which those are found quickly that a question can be about.
//!
//! Casbin evaluates its matcher for every rule that it has, which takes milliseconds for a
//! thousand. It decides here, too, but is shown no rules that cannot match: a rule must be about
//! the subject itself, one of its roles or everybody, and about the action and the object. A test
//! holds this against Casbin with all rules.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use casbin::{CoreApi as _, Enforcer};

use super::Action;
use super::policy::{DEFAULT_MODEL, enforced, enforcer, is_match};

/// The subject of rules about whoever has proved who they are.
const EVERYBODY: &str = "*";

/// See the module.
pub(super) struct Selection {
    /// By their subject.
    rules: HashMap<String, Vec<Rule>>,
    /// Who has which roles.
    roles: HashMap<String, Vec<String>>,
    /// Knows the roles, and the rules of one question at a time.
    enforcer: Mutex<Enforcer>,
}

/// A rule in Casbin's form: subject, object, action and effect.
struct Rule {
    /// Which of all it is.
    at: usize,
    fields: [String; 4],
}

impl Rule {
    fn is_about(&self, action: Action, object: &str) -> bool {
        let [_, pattern, act, _] = &self.fields;
        (act == "*" || act == action.name()) && is_match(object, pattern)
    }
}

impl Selection {
    /// Of lines that were checked: `p` with four fields, `g` with two.
    pub(super) fn of(lines: &[(usize, String)]) -> Result<Selection, String> {
        let (mut rules, mut roles) = (HashMap::new(), HashMap::new());
        let (mut count, mut of_roles) = (0, Vec::new());
        for line in lines {
            let fields: Vec<String> = line.1.split(", ").map(str::to_owned).collect();
            match <[String; 5]>::try_from(fields) {
                Ok([_, subject, object, action, effect]) => {
                    let of_subject: &mut Vec<Rule> = rules.entry(subject.clone()).or_default();
                    of_subject.push(Rule { at: count, fields: [subject, object, action, effect] });
                    count += 1;
                }
                Err(fields) => {
                    let of_subject: &mut Vec<String> = roles.entry(fields[1].clone()).or_default();
                    of_subject.push(fields[2].clone());
                    of_roles.push(line.clone());
                }
            }
        }
        let enforcer = Mutex::new(enforcer(DEFAULT_MODEL, &of_roles)?);
        Ok(Selection { rules, roles, enforcer })
    }

    /// Whether the rules allow it.
    pub(super) fn allows(&self, subject: &str, action: Action, object: &str) -> bool {
        let rules = self.about(subject, action, object);
        let rules: Vec<Vec<String>> = rules.iter().map(|rule| rule.fields.to_vec()).collect();
        self.decided_by(rules, subject, action, object)
    }

    /// Which rules apply, and whether they deny.
    pub(super) fn found(&self, subject: &str, action: Action, object: &str) -> Vec<(usize, bool)> {
        let rules = self.about(subject, action, object);
        let applies = |rule: &&Rule| {
            // Whatever its effect is: by itself, and as one that allows, it allows if it applies.
            let [rule_subject, pattern, act, _] = rule.fields.clone();
            let alone = vec![vec![rule_subject, pattern, act, "allow".to_owned()]];
            self.decided_by(alone, subject, action, object)
        };
        let found = rules.into_iter().filter(applies);
        found.map(|rule| (rule.at, rule.fields[3] == "deny")).collect()
    }

    fn decided_by(
        &self,
        rules: Vec<Vec<String>>,
        subject: &str,
        action: Action,
        object: &str,
    ) -> bool {
        if rules.is_empty() {
            return false;
        }
        let mut enforcer = self.enforcer.lock().unwrap_or_else(PoisonError::into_inner);
        let model = enforcer.get_mut_model();
        // Away with those of the last question. The roles that Casbin goes by are kept elsewhere.
        model.clear_policy();
        // None of the new is left out, least of all one that denies.
        model.add_policies("p", "p", rules) && enforced(&enforcer, subject, action, object)
    }

    /// The rules whose subject, object and action are what is asked about.
    fn about(&self, subject: &str, action: Action, object: &str) -> Vec<&Rule> {
        let subjects = self.subjects(subject);
        let of_subjects = subjects.into_iter().filter_map(|name| self.rules.get(name)).flatten();
        of_subjects.filter(|rule| rule.is_about(action, object)).collect()
    }

    /// Who a subject is: itself, whoever has its roles, to any depth, and everybody.
    fn subjects<'a>(&'a self, subject: &'a str) -> HashSet<&'a str> {
        let (mut subjects, mut new) = (HashSet::new(), vec![subject]);
        while let Some(name) = new.pop() {
            if subjects.insert(name) {
                new.extend(self.roles.get(name).into_iter().flatten().map(String::as_str));
            }
        }
        subjects.insert(EVERYBODY);
        subjects
    }
}
