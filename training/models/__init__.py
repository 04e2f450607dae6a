"""The registry of recipes, by name. A new model is one file in this folder and one line here."""

from training.models import (
    cifar10_cnn,
    cifar10_lenet5,
    mnist_cnn,
    mnist_gan,
    mnist_mlp,
    news_attention,
    news_lstm,
    text_transformer,
    vowels_lstm,
    vowels_lstm_stateful,
    vowels_rnn,
)
from training.recipe import Recipe

RECIPES: dict[str, Recipe] = {
    "mnist-mlp": mnist_mlp.RECIPE,
    "mnist-cnn": mnist_cnn.RECIPE,
    "cifar10-lenet5": cifar10_lenet5.RECIPE,
    "cifar10-cnn": cifar10_cnn.RECIPE,
    "vowels-rnn": vowels_rnn.RECIPE,
    "vowels-lstm": vowels_lstm.RECIPE,
    "vowels-lstm-stateful": vowels_lstm_stateful.RECIPE,
    "news-lstm": news_lstm.RECIPE,
    "news-attention-dot": news_attention.DOT,
    "news-attention-general": news_attention.GENERAL,
    "text-transformer": text_transformer.RECIPE,
    "mnist-gan": mnist_gan.RECIPE,
}
