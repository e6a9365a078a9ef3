"""Words of a command: what they are read as, and what is said of the wrong ones."""

from dataclasses import replace
from pathlib import Path

import pytest

from hopperforge.config.project import Project, load_project
from hopperforge.config.request import WORDS, parse_keyed, parse_memory, parse_words
from hopperforge.errors import InputError
from hopperforge.model.front import Front, FrontKind
from hopperforge.model.request import Cluster, Kernels, Merge, Request, ToolkitChoice
from hopperforge.model.versions import PythonVersion, ToolkitVersion, TorchVersion


@pytest.fixture
def project(root: Path) -> Project:
    return load_project(root)


def refusal(words: str, project: Project) -> InputError:
    with pytest.raises(InputError) as caught:
        parse_words(words.split(), project)
    return caught.value


def test_no_word_is_given(project: Project) -> None:
    assert parse_words([], project) == Request()


def test_every_word_is_read(project: Project) -> None:
    words = (
        "recipe=small profile=whole-set,tiny cuda=13.0 torch=2.10,2.9 python=3.10 engine=podman "
        "base=pulled executor=local jobs=3 memory=12GB kernels=inline merge=off toolkit=registry"
    )
    assert {word.partition("=")[0] for word in words.split()} == set(WORDS) - {"scheduler"}
    assert parse_words(words.split(), project) == Request(
        recipe="small",
        profiles=("whole-set", "tiny"),
        cuda=(ToolkitVersion.parse("13.0"),),
        torch=(TorchVersion(2, 10), TorchVersion(2, 9)),
        python=(PythonVersion(3, 10),),
        engine="podman",
        base="pulled",
        executor="local",
        jobs=3,
        memory=12_000_000_000,
        kernels=Kernels.INLINE,
        merge=Merge.OFF,
        toolkit=ToolkitChoice.REGISTRY,
    )


def test_a_cluster_is_asked_for_by_executor_and_scheduler(project: Project) -> None:
    given = parse_words(["executor=dask", "scheduler=tls://head.cluster:8786", "engine=host"], project)
    assert given.cluster == Cluster(scheduler="tls://head.cluster:8786")
    assert parse_words(["executor=dask"], project).cluster == Cluster(scheduler=None)
    assert parse_words(["executor=local"], project).cluster is None


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("torhc=2.9", "unknown word torhc=2.9; perhaps you meant torch=2.9"),
        ("TORCH=2.9", "unknown word TORCH=2.9; perhaps you meant torch=2.9"),
        ("--jobs=2", "unknown word --jobs=2; perhaps you meant jobs=2"),
        ("colour=red", f"unknown word colour=red; the words here are: {', '.join(WORDS)}"),
        ("torch:2.9", '"torch:2.9" is not a word of the form key=value; perhaps you meant torch=...'),
        ("2.9", '"2.9" is not a word of the form key=value'),
        ("torch=", "torch= lacks a value"),
        ("torch=2.9,", "torch=2.9, lacks a value"),
        ("torch=2.9,2.9", "torch names 2.9 twice"),
        ("torch=2.9 torch=2.10", "torch is given twice; write torch=2.9,2.10"),
        ("jobs=1 jobs=2", "jobs is given twice; give it once"),
        ("cuda=11.8", "cuda=11.8: not in the matrix, which has 13.0"),
        ("cuda=13", "cuda=13: '13' is not a CUDA version; write it as 13.0"),
        ("torch=1.13", "torch=1.13: not in the matrix, which has 2.9, 2.10"),
        ("torch=2.9.1", "torch=2.9.1: '2.9.1' is not a torch version; write it as 2.11"),
        ("python=2.7", "python=2.7: not in the matrix, which has 3.9, 3.10"),
        ("recipe=smal", 'recipe=smal: there is only small; perhaps you meant "small"'),
        ("profile=x", "profile=x: recipe small has tiny, whole-set"),
        (
            "profile=whole recipe=small",
            'profile=whole: recipe small has tiny, whole-set; perhaps you meant "whole-set"',
        ),
        ("engine=dokcer", 'engine=dokcer: there are docker, podman, host; perhaps you meant "docker"'),
        ("base=new", "base=new: there are old, pulled"),
        ("executor=dusk", 'executor=dusk: there are local, dask; perhaps you meant "dask"'),
        (
            "executor=dask scheduler=head:8786",
            'scheduler=head:8786: "head:8786" is not the address of a scheduler; write it as tcp://HOST:8786',
        ),
        (
            "scheduler=tcp://head:8786",
            "scheduler=tcp://head:8786 is for executor=dask; write both, or neither",
        ),
        (
            "executor=dask engine=docker",
            (
                "executor=dask compiles on the workers' hosts, and containers on workers are not there yet: "
                "write engine=host, or leave engine=docker with executor=local"
            ),
        ),
        (
            "executor=dask kernels=inline",
            "kernels=inline is upstream's own build, on this machine: it has no executor=dask",
        ),
        ("kernels=inlin", 'kernels=inlin: there are pack, inline; perhaps you meant "inline"'),
        ("toolkit=apt", "toolkit=apt: there are auto, system, fetched, registry, redist"),
        ("jobs=0", 'jobs=0: "0" is not a whole number of at least 1'),
        ("jobs=2,3", 'jobs=2,3: "2,3" is not a whole number of at least 1'),
        ("jobs=²", 'jobs=²: "²" is not a whole number of at least 1'),
        ("memory=12", 'memory=12: "12" is not a size; write it as 12GB or 12GiB'),
        ("memory=-1GB", 'memory=-1GB: "-1GB" is not a size; write it as 12GB or 12GiB'),
        ("memory=0GB", 'memory=0GB: "0GB" is no memory at all'),
    ],
)
def test_one_wrong_word_is_the_sentence(word: str, sentence: str, project: Project) -> None:
    error = refusal(word, project)
    assert error.sentence == sentence
    assert error.detail == ()
    assert error.exit_code == 2


def test_the_word_all_names_the_whole_matrix_where_nothing_else_does(project: Project) -> None:
    request = parse_words(["torch=2.9", "all"], project)
    matrix = project.matrix
    assert (request.cuda, request.torch, request.python) == (
        tuple(matrix.toolkits),
        (TorchVersion(2, 9),),
        matrix.pythons,
    )
    assert request.everything
    assert not parse_words(["torch=2.9"], project).everything


def test_all_wrong_words_come_at_once(project: Project) -> None:
    error = refusal("torhc=2.9 cuda=11.8,13.0 profile=x jobs=many python=3.10,3.9", project)
    assert error.sentence == "4 of the words are wrong"
    assert error.detail == (
        "unknown word torhc=2.9; perhaps you meant torch=2.9",
        "profile=x: recipe small has tiny, whole-set",
        "cuda=11.8: not in the matrix, which has 13.0",
        'jobs=many: "many" is not a whole number of at least 1',
    )


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("12GB", 12 * 10**9),
        ("12GiB", 12 * 2**30),
        ("12G", 12 * 2**30),
        ("512M", 512 * 2**20),
        ("1.5GB", 1_500_000_000),
        ("2TB", 2 * 10**12),
        ("700KiB", 700 * 1024),
    ],
)
def test_memory_is_bytes(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "GB", "1e3GB", "12 GB", "12gb", "12Gib", "1,5GB", "12P"])
def test_what_is_no_memory(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size; write it as 12GB or 12GiB"):
        parse_memory(text)


def test_keyed_words_of_another_verb() -> None:
    allowed = frozenset({"wheel", "interpreter"})
    assert parse_keyed([], allowed) == {}
    assert parse_keyed(["wheel=a,b=c.whl", "interpreter=/x/python"], allowed) == {
        "wheel": "a,b=c.whl",
        "interpreter": "/x/python",
    }


def test_wrong_keyed_words_come_at_once() -> None:
    with pytest.raises(InputError) as caught:
        parse_keyed(["weel=a", "wheel=a", "wheel=b", "interpreter=", "x"], frozenset({"wheel", "interpreter"}))
    assert caught.value.sentence == "4 of the words are wrong"
    assert caught.value.detail == (
        "unknown word weel=a; perhaps you meant wheel=a",
        "wheel is given twice; give it once",
        "interpreter= lacks a value",
        '"x" is not a word of the form key=value',
    )


def free_project(project: Project) -> Project:
    free = replace(project.recipes["small"], name="free", front=Front(kind=FrontKind.CPP))
    return replace(project, recipes={**project.recipes, "free": free})


def test_words_that_a_recipe_does_not_have_are_refused(project: Project) -> None:
    found = refusal("recipe=free torch=2.10,2.9 python=3.10 kernels=inline", free_project(project))
    assert found.detail == (
        "torch=2.10,2.9: recipe free binds to no torch and no Python, so one package serves them all; leave torch= out",
        "python=3.10: recipe free binds to no torch and no Python, so one package serves them all; leave python= out",
        "kernels=inline is upstream's own build, which recipe free is not of",
    )


def test_all_is_no_word_for_a_torch(project: Project) -> None:
    request = parse_words(["recipe=free", "all"], free_project(project))
    assert request.everything
    assert request.cuda == tuple(project.matrix.toolkits)
