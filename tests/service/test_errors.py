"""Domain errors keep their slug, message and faults."""

from service.errors import BundleError, DeviceError, EkibenError, Fault, forget_traceback, not_finite


def test_ekiben_error_keeps_slug_detail_and_faults() -> None:
    faults = (Fault(pointer="/images/3", detail="27 x 28 pixels, expected 28 x 28"),)
    error = EkibenError("invalid-request", "1 of 4 images cannot be used", faults)
    assert (error.slug, error.detail, error.faults) == ("invalid-request", "1 of 4 images cannot be used", faults)
    assert str(error) == "1 of 4 images cannot be used"
    assert EkibenError("not-ready", "loading").faults == ()


def test_bundle_error_is_a_value_error_and_device_error_is_not() -> None:
    assert issubclass(BundleError, ValueError)
    assert issubclass(DeviceError, RuntimeError)
    assert not issubclass(DeviceError, ValueError)


def test_not_finite_names_every_item_and_its_output() -> None:
    error = not_finite("m/1", {2: "next_c", 0: "logits"}, ["/rows/0", "/rows/1", "/rows/2"])
    assert error.slug == "not-finite"
    assert error.detail == "m/1: the model's output 'logits', 'next_c' is not finite for 2 of 3 items: 0, 2"
    assert error.faults == (
        Fault(pointer="/rows/0", detail="the model's output 'logits' is not finite for this item"),
        Fault(pointer="/rows/2", detail="the model's output 'next_c' is not finite for this item"),
    )


def test_an_answered_error_holds_no_frame_and_neither_do_those_before_it() -> None:
    first, answered = KeyError("k"), EkibenError("timeout", "late")
    try:
        try:
            raise first
        except KeyError:
            raise answered from None
    except EkibenError as error:
        forget_traceback(error)
    assert answered.__context__ is first
    assert answered.__traceback__ is first.__traceback__ is None
    forget_traceback(None)
