"""What the grammars of tree-sitter call things: definitions, blocks, comments, for each language. Knows no text.

A block is a node whose children are statements, members or cases. A wrapper is a statement that may hold a definition
(decorated, exported, assigned to a name). An opener belongs to the statement below it.
"""

from __future__ import annotations

from dataclasses import dataclass

_ALIASES = {
    "c++": "cpp",
    "golang": "go",
    "js": "javascript",
    "jsx": "javascript",
    "py": "python",
    "sh": "bash",
    "shell": "bash",
    "ts": "typescript",
}


@dataclass(frozen=True, slots=True)
class Grammar:
    """Names of a language's nodes, as its grammar gives them."""

    module: str  # of the package
    definitions: frozenset[str]
    blocks: frozenset[str]
    openers: frozenset[str]
    wrappers: frozenset[str] = frozenset()
    function: str = "language"  # of the module, that gives the grammar


def find_grammar(language: str) -> Grammar | None:
    """Look up a programming language by its name, in letters of any case; None where it is not known here."""
    name = language.strip().lower()
    return _GRAMMARS.get(_ALIASES.get(name, name))


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SCRIPT_DEFINITIONS = _names(
    "function_declaration generator_function_declaration class_declaration method_definition class function_expression "
    "generator_function arrow_function"
)
_SCRIPT_BLOCKS = _names("statement_block class_body object switch_body switch_case switch_default")
_SCRIPT_WRAPPERS = _names(
    "export_statement expression_statement assignment_expression lexical_declaration variable_declaration "
    "variable_declarator field_definition pair"
)
_TYPED_DEFINITIONS = _SCRIPT_DEFINITIONS | _names(
    "abstract_class_declaration interface_declaration type_alias_declaration enum_declaration internal_module module"
)
_TYPED_BLOCKS = _SCRIPT_BLOCKS | _names("interface_body object_type enum_body")
_TYPED_WRAPPERS = _SCRIPT_WRAPPERS - {"field_definition"} | _names("ambient_declaration public_field_definition")
_C_DEFINITIONS = _names("function_definition struct_specifier union_specifier enum_specifier preproc_function_def")
_C_BLOCKS = _names(
    "compound_statement declaration_list field_declaration_list enumerator_list case_statement "
    "preproc_if preproc_ifdef preproc_else preproc_elif preproc_elifdef"
)

_GRAMMARS = {
    "bash": Grammar(
        module="tree_sitter_bash",
        definitions=_names("function_definition"),
        blocks=_names("compound_statement do_group subshell case_statement"),
        openers=_names("comment"),
    ),
    "c": Grammar(
        module="tree_sitter_c",
        definitions=_C_DEFINITIONS,
        blocks=_C_BLOCKS,
        openers=_names("comment"),
        wrappers=_names("type_definition"),
    ),
    "cpp": Grammar(
        module="tree_sitter_cpp",
        definitions=_C_DEFINITIONS | _names("class_specifier namespace_definition concept_definition"),
        blocks=_C_BLOCKS,
        openers=_names("comment access_specifier"),
        wrappers=_names("type_definition template_declaration field_declaration"),
    ),
    "go": Grammar(
        module="tree_sitter_go",
        definitions=_names("function_declaration method_declaration type_spec type_alias"),
        blocks=_names(
            "statement_list type_declaration const_declaration var_declaration var_spec_list field_declaration_list "
            "interface_type expression_switch_statement type_switch_statement select_statement"
        ),
        openers=_names("comment"),
        wrappers=_names("type_declaration"),
    ),
    "java": Grammar(
        module="tree_sitter_java",
        definitions=_names(
            "class_declaration interface_declaration enum_declaration record_declaration annotation_type_declaration "
            "method_declaration constructor_declaration compact_constructor_declaration"
        ),
        blocks=_names(
            "block class_body interface_body enum_body enum_body_declarations annotation_type_body constructor_body "
            "switch_block switch_block_statement_group"
        ),
        openers=_names("line_comment block_comment"),
    ),
    "javascript": Grammar(
        module="tree_sitter_javascript",
        definitions=_SCRIPT_DEFINITIONS,
        blocks=_SCRIPT_BLOCKS,
        openers=_names("comment decorator"),
        wrappers=_SCRIPT_WRAPPERS,
    ),
    "python": Grammar(
        module="tree_sitter_python",
        definitions=_names("function_definition class_definition"),
        blocks=_names("block"),
        openers=_names("comment"),
        wrappers=_names("decorated_definition"),
    ),
    "ruby": Grammar(
        module="tree_sitter_ruby",
        definitions=_names("method singleton_method class module singleton_class"),
        blocks=_names("body_statement block_body then else ensure do begin case"),
        openers=_names("comment"),
    ),
    "rust": Grammar(
        module="tree_sitter_rust",
        definitions=_names(
            "function_item struct_item enum_item union_item trait_item impl_item mod_item macro_definition"
        ),
        blocks=_names("block declaration_list match_block field_declaration_list enum_variant_list"),
        openers=_names("line_comment block_comment attribute_item"),
    ),
    "tsx": Grammar(
        module="tree_sitter_typescript",
        definitions=_TYPED_DEFINITIONS,
        blocks=_TYPED_BLOCKS,
        openers=_names("comment decorator"),
        wrappers=_TYPED_WRAPPERS,
        function="language_tsx",
    ),
    "typescript": Grammar(
        module="tree_sitter_typescript",
        definitions=_TYPED_DEFINITIONS,
        blocks=_TYPED_BLOCKS,
        openers=_names("comment decorator"),
        wrappers=_TYPED_WRAPPERS,
        function="language_typescript",
    ),
}
