"""What libraries and objects say of themselves: what they need, where they search, what they show to others."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection, GNUVerSymSection, VersionAuxiliary
from elftools.elf.sections import Symbol, SymbolTableSection

# What pyelftools meets in a damaged file: links to sections that are not there, places and sizes no file has.
_OF_DAMAGE = (
    *(AttributeError, UnicodeDecodeError, OverflowError, ZeroDivisionError, LookupError, TypeError, AssertionError),
)
_MOST_SECTIONS = 65_535  # where the header's own count ends; a damaged one may say 2^64, and each would be looked at

_WEAK = 2
_GNU_UNIQUE = 10
_INFO_OF_SYMBOL = 4  # where st_info is in an Elf64_Sym, whose upper half is the binding
_NEEDED_VERSION = 16  # bytes of an Elf64_Vernaux, so a file has no more of them than these fit in
_VISIBLE = frozenset({"STV_DEFAULT", "STV_PROTECTED"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """The dynamic section and symbol table of a shared library.

    `needed` is DT_NEEDED in order, `search_paths` DT_RPATH and DT_RUNPATH, `exports` the defined dynamic symbols
    others can bind to, `imports` those it wants of others, `soname` DT_SONAME, `versions` each versioned symbol it
    takes from others: ("pthread_create", "GLIBC_2.34").
    """

    needed: tuple[str, ...]
    search_paths: tuple[str, ...]
    exports: tuple[str, ...]
    imports: tuple[str, ...]
    soname: str | None
    versions: tuple[tuple[str, str], ...]


def shown_symbols(data: bytes) -> tuple[str, ...]:
    """Name the defined symbols of an ELF object that others can bind to; ValueError if it is none or is damaged."""
    try:
        return tuple(sorted(symbol.name for symbol in _symbol_table(_open(data)).iter_symbols() if _is_shown(symbol)))
    except (ELFError, ConstructError, *_OF_DAMAGE) as error:
        message = f"it is no readable object: {_why(error)}"
        raise ValueError(message) from error


def weaken_unique(data: bytes) -> bytes:
    """Make an object's symbols that a process has once (STB_GNU_UNIQUE) weak; ValueError if it is none or is damaged.

    They are inline variables of headers. In an object without groups each is one definition too many, and objcopy hides
    weak symbols only; of binutils 2.35 it does not weaken these either.
    """
    changed = bytearray(data)
    try:
        symbols = _symbol_table(_open(data))
        start, size = symbols["sh_offset"], symbols["sh_entsize"]
        for index in range(symbols.num_symbols()):
            place = start + index * size + _INFO_OF_SYMBOL
            if changed[place] >> 4 == _GNU_UNIQUE:
                changed[place] = _WEAK << 4 | changed[place] & 0xF
    except (ELFError, ConstructError, *_OF_DAMAGE) as error:
        message = f"it is no readable object: {_why(error)}"
        raise ValueError(message) from error
    return bytes(changed)


def _symbol_table(elf: ELFFile) -> SymbolTableSection:
    symbols = elf.get_section_by_name(".symtab")
    if not isinstance(symbols, SymbolTableSection):
        message = "it has no symbol table"
        raise ELFError(message)
    return symbols


def _is_shown(symbol: Symbol) -> bool:
    """Whether other objects of one link can bind to it, and clash with it; hidden ones are hidden after the link."""
    return bool(symbol["st_info"]["bind"] != "STB_LOCAL" and symbol["st_shndx"] != "SHN_UNDEF")


def section_of(data: bytes, name: str) -> bytes:
    """Give the bytes of a section of an ELF file, empty where it has none; ValueError if it is damaged."""
    try:
        section = _open(data).get_section_by_name(name)
        return b"" if section is None else bytes(section.data())
    except (ELFError, ConstructError, *_OF_DAMAGE) as error:
        message = f"{name} cannot be read: {_why(error)}"
        raise ValueError(message) from error


def read_library(data: bytes) -> Library:
    """Read an ELF shared library from its bytes; ValueError if it is none or is damaged."""
    try:
        elf = _open(data)
        dynamic, symbols = _dynamic_sections(elf)
        return Library(
            needed=tuple(_texts(dynamic, "needed")),
            search_paths=(*_texts(dynamic, "rpath"), *_texts(dynamic, "runpath")),
            exports=tuple(sorted(_exports(symbols))),
            imports=tuple(sorted(_imports(symbols))),
            soname=next(_texts(dynamic, "soname"), None),
            versions=tuple(sorted(_versions(elf, symbols))),
        )
    except (ELFError, ConstructError, *_OF_DAMAGE) as error:
        message = f"it is no readable shared library: {_why(error)}"
        raise ValueError(message) from error


def _why(error: Exception) -> str:
    """What pyelftools says; its assertions say nothing."""
    return str(error) or "a part of it is of another kind than its headers say"


def _open(data: bytes) -> ELFFile:
    elf = ELFFile(io.BytesIO(data))
    if elf.num_sections() > _MOST_SECTIONS:
        message = f"it claims {elf.num_sections()} sections"
        raise ELFError(message)
    return elf


def _dynamic_sections(elf: ELFFile) -> tuple[DynamicSection, SymbolTableSection]:
    dynamic = elf.get_section_by_name(".dynamic")
    symbols = elf.get_section_by_name(".dynsym")
    if not isinstance(dynamic, DynamicSection) or not isinstance(symbols, SymbolTableSection):
        message = "it has no dynamic section or no dynamic symbol table"
        raise ELFError(message)
    return dynamic, symbols


def _texts(dynamic: DynamicSection, kind: str) -> Iterator[str]:
    """Yield the entries of DT_<KIND>; pyelftools hangs each tag's text on it under the tag's own name."""
    for tag in dynamic.iter_tags(f"DT_{kind.upper()}"):
        yield str(vars(tag)[kind])


def _exports(symbols: SymbolTableSection) -> Iterator[str]:
    for symbol in symbols.iter_symbols():
        defined = symbol["st_shndx"] != "SHN_UNDEF"
        shared = symbol["st_info"]["bind"] != "STB_LOCAL"  # global, weak, and GNU's unique
        if defined and shared and symbol["st_other"]["visibility"] in _VISIBLE:
            yield symbol.name


def _imports(symbols: SymbolTableSection) -> Iterator[str]:
    for symbol in symbols.iter_symbols():
        if symbol["st_shndx"] == "SHN_UNDEF" and symbol.name:
            yield symbol.name


def newest_versions(library: Library) -> tuple[str, ...]:
    """Name the newest version of each family the library asks of the system, with up to three symbols that ask it.

    "GLIBC_2.34 (pthread_create)": these set the platform tag.
    """
    families: dict[str, dict[tuple[int, ...], list[str]]] = {}
    for symbol, version in library.versions:
        family, _, number = version.rpartition("_")
        if all(part.isdecimal() for part in number.split(".")):
            key = tuple(int(part) for part in number.split("."))
            families.setdefault(family, {}).setdefault(key, []).append(symbol)
    lines = []
    for family, versions in sorted(families.items()):
        newest = max(versions)
        symbols = ", ".join(sorted(versions[newest])[:3])
        lines.append(f"{family}_{'.'.join(map(str, newest))} ({symbols})")
    return tuple(lines)


def _versions(elf: ELFFile, symbols: SymbolTableSection) -> Iterator[tuple[str, str]]:
    needed = elf.get_section_by_name(".gnu.version_r")
    marks = elf.get_section_by_name(".gnu.version")
    if not isinstance(needed, GNUVerNeedSection) or not isinstance(marks, GNUVerSymSection):
        return
    names = {aux["vna_other"]: aux.name for aux in _needed_versions(elf, needed)}
    for index, symbol in enumerate(symbols.iter_symbols()):
        version = names.get(marks.get_symbol(index)["ndx"])
        if version is not None:
            yield symbol.name, version


def _needed_versions(elf: ELFFile, needed: GNUVerNeedSection) -> Iterator[VersionAuxiliary]:
    """Yield the versions; ELFError for a damaged table whose entries lead back to themselves, some 2^32 times."""
    most = elf.stream_len // _NEEDED_VERSION
    versions = (version for _, group in needed.iter_versions() for version in group)
    for number, version in enumerate(versions):
        if number >= most:
            message = "its table of needed versions leads back to itself"
            raise ELFError(message)
        yield version
