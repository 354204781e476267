"""An activation's CUDA text, turned into Python that Numba compiles: the formula has one text for both.

Expressions with arithmetic, comparisons, ``&&``, ``||``, ``!``, ``? :`` and calls; declarations, assignments, ``if``
and ``return``. What else C++ has raises :class:`UncompilableError`.
"""

from __future__ import annotations

import re

from gpunet.activations import Activation

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)[fF]?"
    r"|(?P<name>[A-Za-z_]\w*(?:::\w+)?)|(?P<sign>&&|\|\||[-+*/]=|[<>=!]=|[-+*/<>!?:(),;={}])|(?P<wrong>\S))"
)
_LEVELS = (("||",), ("&&",), ("==", "!="), ("<", ">", "<=", ">="), ("+", "-"), ("*", "/"))
_WORDS = {"||": "|", "&&": "&"}
FUNCTIONS = {
    **dict.fromkeys(("exponential", "exp", "expf"), "exponential"),
    **dict.fromkeys(("exponential_minus_one", "expm1"), "exponential_minus_one"),
    **dict.fromkeys(("hyperbolic_tangent", "tanh", "tanhf"), "hyperbolic_tangent"),
    **dict.fromkeys(("logarithm_of_one_plus", "log1p"), "logarithm_of_one_plus"),
    **dict.fromkeys(("clamped", "multiply_rounded", "fused_multiply_add", "sqrt", "log", "sin", "cos", "atan")),
    **dict.fromkeys(("fabs", "abs"), "abs"),
    "fma": "fused_multiply_add",
    "erf": "error_function",
}


class UncompilableError(Exception):
    """An activation runs on NumPy alone; the message says why."""


def translate(activation: Activation) -> tuple[str, str]:
    """Return the Python sources of an activation and of its derivative.

    Raises
    ------
    UncompilableError
        It has no CUDA text, or one that is not understood.
    """
    if activation.cuda_forward is None or activation.cuda_derivative is None:
        raise UncompilableError("it has no CUDA text")
    argument = "s" if activation.derivative_of == "input" else "y"
    return _python(activation.cuda_forward, "s"), _python(activation.cuda_derivative, argument)


class _Parser:
    def __init__(self, text: str, argument: str) -> None:
        self.names = {argument, "parameter"}
        self.tokens = [match for match in _TOKEN.finditer(text) if match.lastgroup]
        self.place = 0

    @property
    def now(self) -> str:
        return self.tokens[self.place].group(self.kind) if self.place < len(self.tokens) else ""

    @property
    def kind(self) -> str:
        return self.tokens[self.place].lastgroup or "" if self.place < len(self.tokens) else ""

    def accept(self, *words: str) -> str:
        word = self.now
        if word and word in words:
            self.place += 1
            return word
        return ""

    def expect(self, word: str) -> None:
        if not self.accept(word):
            raise UncompilableError(f"expected {word!r}, got {self.now!r}")

    def take_name(self) -> str:
        if self.kind != "name":
            raise UncompilableError(f"expected a name, got {self.now!r}")
        self.place += 1
        return self.tokens[self.place - 1].group("name")

    def statements(self, stop: str = "") -> list[str]:
        lines: list[str] = []
        while self.now != stop:
            lines += self.statement()
        return lines or ["pass"]

    def statement(self) -> list[str]:
        if self.accept("{"):
            lines = self.statements("}")
            self.expect("}")
            return lines
        if self.accept("return"):
            lines = [f"return A({self.expression()})"]
        elif self.accept("if"):
            self.accept("constexpr")
            self.expect("(")
            condition = self.expression()
            self.expect(")")
            lines = [f"if {condition}:", *_indented(self.statement())]
            return [*lines, "else:", *_indented(self.statement())] if self.accept("else") else lines
        elif self.now in ("const", "A", "auto", "bool"):
            self.accept("const")
            self.accept("A", "auto", "bool")
            lines = []
            while True:
                name = self.take_name()
                self.names.add(name)
                if self.accept("="):
                    lines.append(f"{name} = {self.expression()}")
                if not self.accept(","):
                    break
        else:
            name = self.take_name()
            sign = self.accept("=", "+=", "-=", "*=", "/=")
            if not sign:
                raise UncompilableError(f"expected an assignment, got {self.now!r}")
            lines = [f"{name} {sign} {self.expression()}"]
        self.expect(";")
        return lines

    def expression(self) -> str:
        condition = self.binary(0)
        if not self.accept("?"):
            return condition
        yes = self.expression()
        self.expect(":")
        return f"select({condition}, A({yes}), A({self.expression()}))"

    def binary(self, level: int) -> str:
        if level == len(_LEVELS):
            return self.unary()
        left = self.binary(level + 1)
        while sign := self.accept(*_LEVELS[level]):
            left = f"({left} {_WORDS.get(sign, sign)} {self.binary(level + 1)})"
        return left

    def unary(self) -> str:
        if self.accept("-"):
            return f"(-{self.unary()})"
        if self.accept("+"):
            return self.unary()
        if self.accept("!"):
            return f"(not {self.unary()})"
        if self.accept("("):
            inner = self.expression()
            self.expect(")")
            return f"({inner})"
        if self.kind == "number":
            self.place += 1
            return f"A({float(self.tokens[self.place - 1].group('number'))!r})"
        name = self.take_name()
        if not self.accept("("):
            if name not in self.names:
                raise UncompilableError(f"unknown name {name!r}")
            return name
        if name == "sizeof":
            self.expect("A")
            self.expect(")")
            return "size"
        arguments = [self.expression()]
        while self.accept(","):
            arguments.append(self.expression())
        self.expect(")")
        if name == "A":
            return f"A({', '.join(arguments)})"
        if name not in FUNCTIONS:
            raise UncompilableError(f"unknown function {name!r}")
        return f"{FUNCTIONS[name] or name}({', '.join(arguments)})"


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _python(text: str, argument: str) -> str:
    """Return a Python function ``function(argument, parameter)`` of a CUDA text.

    Parameters
    ----------
    text : str
        An expression, or statements with ``return``, as :class:`gpunet.Activation` takes them.
    argument : str
        ``"s"`` or ``"y"``.

    Raises
    ------
    UncompilableError
        It has something that is not known here.
    """
    parser = _Parser(re.sub(r"//[^\n]*", "", text), argument)
    if re.search(r"\breturn\b", text):
        lines = parser.statements()
    else:
        lines = [f"return A({parser.expression()})"]
        if parser.now:
            raise UncompilableError(f"expected the end, got {parser.now!r}")
    return "\n".join([f"def function({argument}, parameter):", *_indented(lines)])
