"""Samples as Prometheus reads them."""

from prometheus_client.parser import text_string_to_metric_families

from service.http.telemetry.exposition import Samples, exposition


def scrape(samples: Samples) -> dict[str, float]:
    """Parse the exposition of the samples into NAME,LABEL_VALUE,... -> value, with label values by label name."""
    families = text_string_to_metric_families(exposition(samples).decode())
    return {
        sample.name + "".join(f",{value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }
