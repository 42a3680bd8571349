"""Reads a pickle as data: what it would import and call comes out as a description, and nothing is imported or called.

A pickle is a program for a small stack machine, and Python's own machine calls whatever the program names. This one
has no instruction that can call: a class or function is a `Name`, calling it makes a `Record` that remembers callee
and arguments, and setting a state stores it in that record. So the safety does not rest on a list of allowed names, and
the holes of an `Unpickler` subclass (attributes set by BUILD, the extension registry, `__setstate__`) do not exist.
`pickletools.genops` of the standard library decodes the instructions.
"""

from __future__ import annotations

import pickletools
from typing import IO, Any, Final

from rts_batch.errors import WeightsError
from rts_batch.weights.pickled import Name, PersistentId, Record, plain_keys

MAX_PICKLE_BYTES: Final = 4 << 20
"""Tensors are stored beside the pickle, so that of a real checkpoint has well below one megabyte."""


def read_pickle(file: IO[bytes], where: str, *, limit: int = MAX_PICKLE_BYTES) -> tuple[Any, list[PersistentId]]:
    """Read one pickle of at most `limit` bytes from `file`, leaving it behind the pickle's last byte.

    Returns the object, made of plain values, lists, tuples, dicts, `Name`, `Record` and `PersistentId`, and all
    persistent ids in the order in which they occur. Raises `WeightsError` naming `where` and the byte at fault.
    """
    machine = _Machine()
    start = file.tell()
    position, instruction = start, "the start"
    try:
        for opcode, argument, offset in pickletools.genops(file):
            position, instruction = offset or 0, opcode.name
            if position - start > limit:
                raise ValueError(f"longer than {limit >> 20} MiB")
            machine.step(opcode.name, argument)
        return machine.result(), machine.persistent_ids
    except WeightsError:
        raise
    except Exception as error:  # whatever damage makes of the decoder, it is the file's fault
        reason = str(error)[:200] or type(error).__name__
        raise WeightsError(
            f"{where}: the pickle is damaged at byte {position} ({instruction}): {reason}; fetch the file again"
        ) from None


class _Machine:
    """The stack machine of the pickle protocols 0 to 5, without the instructions' effects on the world."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.persistent_ids: list[PersistentId] = []

    def result(self) -> Any:
        (value,) = self.stack
        return value

    def step(self, opcode: str, argument: Any) -> None:
        if opcode in _CONSTANTS:
            self._push(_CONSTANTS[opcode])
        elif opcode in _LITERALS:
            self._push(argument)
        elif opcode not in _IGNORED:
            getattr(self, "_" + opcode.lower(), self._unknown)(argument)

    def _unknown(self, argument: Any) -> None:
        raise ValueError("an instruction that no checkpoint uses")

    def _push(self, value: Any) -> None:
        self.stack.append(value)

    def _pop_marked(self) -> list[Any]:
        values, self.stack = self.stack, self.marked.pop()
        return values

    def _take(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise ValueError("the stack is empty")
        values = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return values

    # The stack and the memo

    def _mark(self, argument: Any) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def _pop(self, argument: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._pop_marked()

    def _pop_mark(self, argument: Any) -> None:
        self._pop_marked()

    def _dup(self, argument: Any) -> None:
        self._push(self.stack[-1])

    def _put(self, argument: int) -> None:
        self.memo[argument] = self.stack[-1]

    def _get(self, argument: int) -> None:
        if argument not in self.memo:
            raise ValueError(f"memo {argument} was never stored")
        self._push(self.memo[argument])

    _binput = _long_binput = _put
    _binget = _long_binget = _get

    def _memoize(self, argument: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    # Containers

    def _empty_list(self, argument: Any) -> None:
        self._push([])

    _empty_set = _empty_list  # a set's members would have to be hashed

    def _empty_dict(self, argument: Any) -> None:
        self._push({})

    def _list(self, argument: Any) -> None:
        self._push(self._pop_marked())

    _frozenset = _list

    def _tuple(self, argument: Any) -> None:
        self._push(tuple(self._pop_marked()))

    def _dict(self, argument: Any) -> None:
        values = self._pop_marked()
        self._push({})
        self._assign(values)

    def _tuple1(self, argument: Any) -> None:
        self._push(tuple(self._take(1)))

    def _tuple2(self, argument: Any) -> None:
        self._push(tuple(self._take(2)))

    def _tuple3(self, argument: Any) -> None:
        self._push(tuple(self._take(3)))

    def _append(self, argument: Any) -> None:
        self._extend(self._take(1))

    def _appends(self, argument: Any) -> None:
        self._extend(self._pop_marked())

    _additems = _appends

    def _extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Record):
            target.elements.extend(values)
        elif isinstance(target, list):
            target.extend(values)
        else:
            raise ValueError(f"appends to a {type(target).__name__}")

    def _setitem(self, argument: Any) -> None:
        self._assign(self._take(2))

    def _setitems(self, argument: Any) -> None:
        self._assign(self._pop_marked())

    def _assign(self, values: list[Any]) -> None:
        target = self.stack[-1]
        pairs = list(zip(values[::2], values[1::2], strict=True))
        if isinstance(target, Record):
            target.items.extend(pairs)
        elif isinstance(target, dict):
            target.update(plain_keys(pairs))
        else:
            raise ValueError(f"assigns items of a {type(target).__name__}")

    # What the pickle would import, call and fetch

    def _global(self, argument: str) -> None:
        self._push(Name(*argument.split(" ", 1)))

    def _stack_global(self, argument: Any) -> None:
        module, name = self._take(2)
        if not (isinstance(module, str) and isinstance(name, str)):
            raise ValueError("a global whose name is not text")
        self._push(Name(module, name))

    def _ext1(self, argument: int) -> None:
        self._push(Name("copyreg", f"extension {argument}"))

    _ext2 = _ext4 = _ext1

    def _reduce(self, argument: Any) -> None:
        self._push(Record(*self._take(2)))

    _newobj = _reduce

    def _newobj_ex(self, argument: Any) -> None:
        callee, args, _kwargs = self._take(3)
        self._push(Record(callee, args))

    def _inst(self, argument: str) -> None:
        self._push(Record(Name(*argument.split(" ", 1)), tuple(self._pop_marked())))

    def _obj(self, argument: Any) -> None:
        callee, *args = self._pop_marked()
        self._push(Record(callee, tuple(args)))

    def _build(self, argument: Any) -> None:
        (state,) = self._take(1)
        if isinstance(self.stack[-1], Record):
            self.stack[-1].state = state

    def _persid(self, argument: str) -> None:
        self.persistent_ids.append(PersistentId(argument))
        self._push(self.persistent_ids[-1])

    def _binpersid(self, argument: Any) -> None:
        self._persid(self._take(1)[0])


_CONSTANTS: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_IGNORED: Final = frozenset({"PROTO", "FRAME", "STOP"})
_LITERALS: Final = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)
