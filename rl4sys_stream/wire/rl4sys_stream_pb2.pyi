from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class End(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    END_UNSPECIFIED: _ClassVar[End]
    END_TERMINATED: _ClassVar[End]
    END_TRUNCATED: _ClassVar[End]
    END_CUT: _ClassVar[End]
END_UNSPECIFIED: End
END_TERMINATED: End
END_TRUNCATED: End
END_CUT: End

class Trajectory(_message.Message):
    __slots__ = ("header", "observations", "choices", "vectors", "rewards", "log_probs", "masks", "priors", "final_observation", "final_mask")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    OBSERVATIONS_FIELD_NUMBER: _ClassVar[int]
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    REWARDS_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBS_FIELD_NUMBER: _ClassVar[int]
    MASKS_FIELD_NUMBER: _ClassVar[int]
    PRIORS_FIELD_NUMBER: _ClassVar[int]
    FINAL_OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    FINAL_MASK_FIELD_NUMBER: _ClassVar[int]
    header: TrajectoryHeader
    observations: bytes
    choices: bytes
    vectors: bytes
    rewards: bytes
    log_probs: bytes
    masks: bytes
    priors: bytes
    final_observation: bytes
    final_mask: bytes
    def __init__(self, header: _Optional[_Union[TrajectoryHeader, _Mapping]] = ..., observations: _Optional[bytes] = ..., choices: _Optional[bytes] = ..., vectors: _Optional[bytes] = ..., rewards: _Optional[bytes] = ..., log_probs: _Optional[bytes] = ..., masks: _Optional[bytes] = ..., priors: _Optional[bytes] = ..., final_observation: _Optional[bytes] = ..., final_mask: _Optional[bytes] = ...) -> None: ...

class TrajectoryHeader(_message.Message):
    __slots__ = ("format", "steps", "behavior", "end", "episode", "offset", "created_ms")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    BEHAVIOR_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    EPISODE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    CREATED_MS_FIELD_NUMBER: _ClassVar[int]
    format: int
    steps: int
    behavior: _containers.RepeatedCompositeFieldContainer[BehaviorRun]
    end: End
    episode: int
    offset: int
    created_ms: int
    def __init__(self, format: _Optional[int] = ..., steps: _Optional[int] = ..., behavior: _Optional[_Iterable[_Union[BehaviorRun, _Mapping]]] = ..., end: _Optional[_Union[End, str]] = ..., episode: _Optional[int] = ..., offset: _Optional[int] = ..., created_ms: _Optional[int] = ...) -> None: ...

class BehaviorRun(_message.Message):
    __slots__ = ("version", "token", "steps")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    version: int
    token: str
    steps: int
    def __init__(self, version: _Optional[int] = ..., token: _Optional[str] = ..., steps: _Optional[int] = ...) -> None: ...

class ModelFrame(_message.Message):
    __slots__ = ("version", "token", "lineage", "extras", "digest", "snapshot", "diff")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    EXTRAS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    DIFF_FIELD_NUMBER: _ClassVar[int]
    version: int
    token: str
    lineage: str
    extras: bytes
    digest: str
    snapshot: bytes
    diff: Diff
    def __init__(self, version: _Optional[int] = ..., token: _Optional[str] = ..., lineage: _Optional[str] = ..., extras: _Optional[bytes] = ..., digest: _Optional[str] = ..., snapshot: _Optional[bytes] = ..., diff: _Optional[_Union[Diff, _Mapping]] = ...) -> None: ...

class Diff(_message.Message):
    __slots__ = ("base_version", "base_token", "frame")
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    BASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    base_version: int
    base_token: str
    frame: bytes
    def __init__(self, base_version: _Optional[int] = ..., base_token: _Optional[str] = ..., frame: _Optional[bytes] = ...) -> None: ...

class ClientSpec(_message.Message):
    __slots__ = ("algorithm", "observation_space", "action_space", "network")
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_SPACE_FIELD_NUMBER: _ClassVar[int]
    ACTION_SPACE_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    algorithm: str
    observation_space: Space
    action_space: Space
    network: Network
    def __init__(self, algorithm: _Optional[str] = ..., observation_space: _Optional[_Union[Space, _Mapping]] = ..., action_space: _Optional[_Union[Space, _Mapping]] = ..., network: _Optional[_Union[Network, _Mapping]] = ...) -> None: ...

class Space(_message.Message):
    __slots__ = ("box", "discrete", "multi_discrete", "multi_binary", "dict", "tuple")
    BOX_FIELD_NUMBER: _ClassVar[int]
    DISCRETE_FIELD_NUMBER: _ClassVar[int]
    MULTI_DISCRETE_FIELD_NUMBER: _ClassVar[int]
    MULTI_BINARY_FIELD_NUMBER: _ClassVar[int]
    DICT_FIELD_NUMBER: _ClassVar[int]
    TUPLE_FIELD_NUMBER: _ClassVar[int]
    box: Box
    discrete: Discrete
    multi_discrete: MultiDiscrete
    multi_binary: MultiBinary
    dict: Dict
    tuple: Tuple
    def __init__(self, box: _Optional[_Union[Box, _Mapping]] = ..., discrete: _Optional[_Union[Discrete, _Mapping]] = ..., multi_discrete: _Optional[_Union[MultiDiscrete, _Mapping]] = ..., multi_binary: _Optional[_Union[MultiBinary, _Mapping]] = ..., dict: _Optional[_Union[Dict, _Mapping]] = ..., tuple: _Optional[_Union[Tuple, _Mapping]] = ...) -> None: ...

class Box(_message.Message):
    __slots__ = ("shape", "low", "high")
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    shape: _containers.RepeatedScalarFieldContainer[int]
    low: _containers.RepeatedScalarFieldContainer[float]
    high: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, shape: _Optional[_Iterable[int]] = ..., low: _Optional[_Iterable[float]] = ..., high: _Optional[_Iterable[float]] = ...) -> None: ...

class Discrete(_message.Message):
    __slots__ = ("n",)
    N_FIELD_NUMBER: _ClassVar[int]
    n: int
    def __init__(self, n: _Optional[int] = ...) -> None: ...

class MultiDiscrete(_message.Message):
    __slots__ = ("nvec",)
    NVEC_FIELD_NUMBER: _ClassVar[int]
    nvec: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, nvec: _Optional[_Iterable[int]] = ...) -> None: ...

class MultiBinary(_message.Message):
    __slots__ = ("n",)
    N_FIELD_NUMBER: _ClassVar[int]
    n: int
    def __init__(self, n: _Optional[int] = ...) -> None: ...

class Dict(_message.Message):
    __slots__ = ("spaces",)
    SPACES_FIELD_NUMBER: _ClassVar[int]
    spaces: _containers.RepeatedCompositeFieldContainer[NamedSpace]
    def __init__(self, spaces: _Optional[_Iterable[_Union[NamedSpace, _Mapping]]] = ...) -> None: ...

class NamedSpace(_message.Message):
    __slots__ = ("name", "space")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    name: str
    space: Space
    def __init__(self, name: _Optional[str] = ..., space: _Optional[_Union[Space, _Mapping]] = ...) -> None: ...

class Tuple(_message.Message):
    __slots__ = ("spaces",)
    SPACES_FIELD_NUMBER: _ClassVar[int]
    spaces: _containers.RepeatedCompositeFieldContainer[Space]
    def __init__(self, spaces: _Optional[_Iterable[_Union[Space, _Mapping]]] = ...) -> None: ...

class Network(_message.Message):
    __slots__ = ("hidden_sizes", "activation", "squash_output", "per_item", "critic_hidden_sizes", "shared_layers")
    HIDDEN_SIZES_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    SQUASH_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    PER_ITEM_FIELD_NUMBER: _ClassVar[int]
    CRITIC_HIDDEN_SIZES_FIELD_NUMBER: _ClassVar[int]
    SHARED_LAYERS_FIELD_NUMBER: _ClassVar[int]
    hidden_sizes: _containers.RepeatedScalarFieldContainer[int]
    activation: str
    squash_output: bool
    per_item: bool
    critic_hidden_sizes: Layers
    shared_layers: int
    def __init__(self, hidden_sizes: _Optional[_Iterable[int]] = ..., activation: _Optional[str] = ..., squash_output: _Optional[bool] = ..., per_item: _Optional[bool] = ..., critic_hidden_sizes: _Optional[_Union[Layers, _Mapping]] = ..., shared_layers: _Optional[int] = ...) -> None: ...

class Layers(_message.Message):
    __slots__ = ("sizes",)
    SIZES_FIELD_NUMBER: _ClassVar[int]
    sizes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, sizes: _Optional[_Iterable[int]] = ...) -> None: ...
