"""Domain errors keep their slug, message and faults."""

from service.errors import BundleError, DeviceError, EkibenError, Fault


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
