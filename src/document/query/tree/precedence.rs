//! The grouping of operators, and the evaluation order of their operands.

use jaq_core::load::parse::{BinaryOp, Term};
use jaq_core::ops::Math;

use super::terms::{bind, call, commas, infix, pipe};
use super::{OPERAND, Rewriter, Tree};
use crate::document::query::assign::{ASSIGN, MODIFY};
use crate::document::query::natives::TRUE;

const ASSIGNMENT: u8 = 4;
const COMPARISON: u8 = 7;

impl<'s> Rewriter<'s> {
    /// Applies jq's precedences: flattens jaq's tree, in which parentheses are calls, and climbs it
    /// again.
    pub(super) fn operations(&self, term: Tree<'s>) -> Result<Tree<'s>, String> {
        let (mut operands, mut operators, mut open) = (Vec::new(), Vec::new(), vec![Ok(term)]);
        while let Some(next) = open.pop() {
            match next {
                Ok(Term::BinOp(left, operator, right)) => {
                    open.extend([Ok(*right), Err(operator), Ok(*left)]);
                }
                Ok(operand) => operands.push(self.term(operand)?),
                Err(operator) => operators.push(operator),
            }
        }
        operands.reverse();
        operators.reverse();
        let first = operands.pop().unwrap_or_default();
        self.climb(first, &mut operands, &mut operators, 0)
    }

    /// Takes the operators of at least this precedence, with their associativity.
    fn climb(
        &self,
        mut left: Tree<'s>,
        operands: &mut Vec<Tree<'s>>,
        operators: &mut Vec<BinaryOp<&'s str>>,
        least: u8,
    ) -> Result<Tree<'s>, String> {
        while let Some(operator) = operators.pop_if(|operator| precedence(operator) >= least) {
            let level = precedence(&operator);
            let is_right = matches!(operator, BinaryOp::Pipe(_) | BinaryOp::Alt);
            let next = match operator {
                BinaryOp::Pipe(_) => 0, // and everything after it
                _ if is_right => level,
                _ => level + 1,
            };
            // A list of a thousand values must not recurse a thousand levels deep.
            let first = operands.pop().unwrap_or_default();
            let right = self.climb(first, operands, operators, next)?;
            left = if let BinaryOp::Comma = operator {
                let mut list = vec![left, right];
                while operators.pop_if(|operator| matches!(operator, BinaryOp::Comma)).is_some() {
                    let first = operands.pop().unwrap_or_default();
                    list.push(self.climb(first, operands, operators, next)?);
                }
                commas(list)
            } else {
                self.operation(left, operator, right)?
            };
            if matches!(level, ASSIGNMENT | COMPARISON)
                && operators.last().is_some_and(|op| precedence(op) == level)
            {
                let what = if level == ASSIGNMENT { "assignments" } else { "comparisons" };
                return Err(format!("two {what} in a row: put parentheses around one of them"));
            }
        }
        Ok(left)
    }

    fn operation(
        &self,
        left: Tree<'s>,
        op: BinaryOp<&'s str>,
        right: Tree<'s>,
    ) -> Result<Tree<'s>, String> {
        let operand = |op| infix(Term::Id, op, Term::Var(OPERAND));
        let op = match op {
            BinaryOp::Assign => return Ok(Term::Call(ASSIGN, vec![left, right])),
            BinaryOp::Update => return Ok(Term::Call(MODIFY, vec![left, right])),
            BinaryOp::UpdateMath(math) => operand(BinaryOp::Math(math)),
            BinaryOp::UpdateAlt => operand(BinaryOp::Alt),
            BinaryOp::Math(_) | BinaryOp::Cmp(_) => return Ok(self.ordered(left, op, right)),
            BinaryOp::Alt => return Ok(infix(self.that_are_true(left), op, right)),
            BinaryOp::Pipe(Some(pattern)) => return self.bind(left, pattern, right),
            other => return Ok(infix(left, other, right)),
        };
        Ok(bind(right, OPERAND, Term::Call(MODIFY, vec![left, op])))
    }

    /// jq evaluates the whole left side once for each output of the right side.
    pub(super) fn ordered(
        &self,
        left: Tree<'s>,
        op: BinaryOp<&'s str>,
        right: Tree<'s>,
    ) -> Tree<'s> {
        if self.outputs(&left).is_one() || self.outputs(&right).is_one() {
            return infix(left, op, right);
        }
        bind(right, OPERAND, infix(left, op, Term::Var(OPERAND)))
    }

    /// For `//`, jaq takes the true outputs of the left side, but the paths of all of them.
    fn that_are_true(&self, left: Tree<'s>) -> Tree<'s> {
        if self.outputs(&left).is_one() {
            return left;
        }
        pipe(left, call(TRUE))
    }
}

/// The precedence of an operator in jq.
fn precedence(operator: &BinaryOp<&str>) -> u8 {
    match operator {
        BinaryOp::Pipe(None) => 0,
        BinaryOp::Comma => 1,
        BinaryOp::Pipe(Some(_)) => 2,
        BinaryOp::Alt => 3,
        BinaryOp::Assign | BinaryOp::Update | BinaryOp::UpdateMath(_) | BinaryOp::UpdateAlt => {
            ASSIGNMENT
        }
        BinaryOp::Or => 5,
        BinaryOp::And => 6,
        BinaryOp::Cmp(_) => COMPARISON,
        BinaryOp::Math(Math::Add | Math::Sub) => 8,
        BinaryOp::Math(_) => 9,
    }
}
