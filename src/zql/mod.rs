//! What a query means: AST, values, plan, evaluation.
