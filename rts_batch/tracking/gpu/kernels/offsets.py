"""Where things lie in a slot's tensors, by the names that the tensor operations use, as constants that Triton takes."""

from __future__ import annotations

import triton.language as tl

from rts_batch.tracking.gpu.region import Place
from rts_batch.tracking.gpu.result import Number
from rts_batch.tracking.gpu.state import Flag, Value
from rts_batch.tracking.signals import Signal

FLAG_LOST_LOCALISATION = tl.constexpr(int(Flag.LOST_LOCALISATION))
FLAG_LOST_MASK = tl.constexpr(int(Flag.LOST_MASK))
FLAG_MASK_TOO_SMALL = tl.constexpr(int(Flag.MASK_TOO_SMALL))
NUMBER_AREA = tl.constexpr(int(Number.AREA))
NUMBER_BOX = tl.constexpr(int(Number.BOX))
NUMBER_CONFIDENCE_SUM = tl.constexpr(int(Number.CONFIDENCE_SUM))
NUMBER_LOST_LOCALISATION = tl.constexpr(int(Number.LOST_LOCALISATION))
NUMBER_LOST_MASK = tl.constexpr(int(Number.LOST_MASK))
NUMBER_MASK_TOO_SMALL = tl.constexpr(int(Number.MASK_TOO_SMALL))
NUMBER_POSITION = tl.constexpr(int(Number.POSITION))
NUMBER_PROBABILITY_SUM = tl.constexpr(int(Number.PROBABILITY_SUM))
NUMBER_SCORE = tl.constexpr(int(Number.SCORE))
NUMBER_TARGET_SIZE = tl.constexpr(int(Number.TARGET_SIZE))
NUMBER_WINDOW = tl.constexpr(int(Number.WINDOW))
PLACE_BOTTOM_RIGHT = tl.constexpr(int(Place.BOTTOM_RIGHT))
PLACE_COUNT = tl.constexpr(int(Place.COUNT))
PLACE_FIRST = tl.constexpr(int(Place.FIRST))
PLACE_INNER = tl.constexpr(int(Place.INNER))
PLACE_OFFSET = tl.constexpr(int(Place.OFFSET))
PLACE_STRIDE = tl.constexpr(int(Place.STRIDE))
PLACE_TOP_LEFT = tl.constexpr(int(Place.TOP_LEFT))
SIGNAL_COMPACT = tl.constexpr(int(Signal.COMPACT))
SIGNAL_CONFIDENCE = tl.constexpr(int(Signal.CONFIDENCE))
SIGNAL_EDGE = tl.constexpr(int(Signal.EDGE))
SIGNAL_EMPTY = tl.constexpr(int(Signal.EMPTY))
SIGNAL_OFF_PEAK = tl.constexpr(int(Signal.OFF_PEAK))
SIGNAL_PEAK = tl.constexpr(int(Signal.PEAK))
SIGNAL_ROUGH = tl.constexpr(int(Signal.ROUGH))
SIGNAL_SECOND = tl.constexpr(int(Signal.SECOND))
SIGNAL_SEEN_AT_PEAK = tl.constexpr(int(Signal.SEEN_AT_PEAK))
SIGNAL_SIZE = tl.constexpr(int(Signal.SIZE))
SIGNAL_SOFTER_IOU = tl.constexpr(int(Signal.SOFTER_IOU))
SIGNAL_SOFT_IOU = tl.constexpr(int(Signal.SOFT_IOU))
SIGNAL_STABLE_1 = tl.constexpr(int(Signal.STABLE_1))
SIGNAL_STABLE_3 = tl.constexpr(int(Signal.STABLE_3))
SIGNAL_UNSURE = tl.constexpr(int(Signal.UNSURE))
VALUE_BASE_TARGET_SIZE = tl.constexpr(int(Value.BASE_TARGET_SIZE))
VALUE_CLF_BASE_TARGET_SIZE = tl.constexpr(int(Value.CLF_BASE_TARGET_SIZE))
VALUE_CLF_POSITION = tl.constexpr(int(Value.CLF_POSITION))
VALUE_CLF_SCALE = tl.constexpr(int(Value.CLF_SCALE))
VALUE_CLF_SCALE_BOUNDS = tl.constexpr(int(Value.CLF_SCALE_BOUNDS))
VALUE_CLF_TARGET_SIZE = tl.constexpr(int(Value.CLF_TARGET_SIZE))
VALUE_HISTORY = tl.constexpr(int(Value.HISTORY))
VALUE_LOST_FRAMES = tl.constexpr(int(Value.LOST_FRAMES))
VALUE_PLACEMENT = tl.constexpr(int(Value.PLACEMENT))
VALUE_POSITION = tl.constexpr(int(Value.POSITION))
VALUE_TARGET_SCALE = tl.constexpr(int(Value.TARGET_SCALE))
VALUE_TARGET_SIZE = tl.constexpr(int(Value.TARGET_SIZE))
