"""Samples as Prometheus reads them."""

from prometheus_client.parser import text_string_to_metric_families

from service.http.telemetry.exposition import Samples, render_text


def scrape(samples: Samples) -> dict[str, float]:
    """Render the samples and parse the text into NAME,LABEL_VALUE,... -> value, with label values by label name."""
    families = text_string_to_metric_families(render_text(samples).decode())
    return {
        sample.name + "".join(f",{value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }
