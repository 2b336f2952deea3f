"""The DiT over a mesh of ranks: the same calls and, on every rank, the same velocity as on one device.

Legend: B batch, C latent channels, T frames, h/w latent height and width, L tokens, D width, F features of an output
token, P rotary pairs. Per forward, a rank sends its shard of queries, keys, values and attention once per block
(Ulysses) or keys and values ring_degree - 1 times (ring), and its share of the velocity once.
"""

from dataclasses import replace

import torch
from torch import nn

from helios_engine.configs import TransformerConfig
from helios_engine.model.attention import TextKeysValues
from helios_engine.model.transformer import HeliosTransformer, History, Timestep, unpatchify
from helios_engine.ops.attention_backends import AttendFn
from helios_engine.parallel.attend import ParallelAttend
from helios_engine.parallel.exchange import gather_batch, gather_tokens
from helios_engine.parallel.mesh import Mesh
from helios_engine.parallel.shards import SequenceShards
from helios_kernels.backend import refuse_gradient


class ParallelTransformer(nn.Module):
    """Runs a HeliosTransformer, whole on every rank of the mesh, on this rank's share of the tokens and of the batch.

    For inference: gradients do not flow through the exchanges, and a forward that needs one raises RuntimeError. All
    ranks have to make the same calls with the same arguments. Raises ValueError where the mesh does not fit the number
    of heads.
    """

    def __init__(self, model: HeliosTransformer, mesh: Mesh) -> None:
        super().__init__()
        mesh.parallel.check_heads(model.config.num_attention_heads)
        self.model, self.mesh = model, mesh

    @property
    def config(self) -> TransformerConfig:
        """The configuration of the model."""
        return self.model.config

    @property
    def proj_out(self) -> nn.Linear:
        """The model's last layer: tells device and dtype."""
        return self.model.proj_out

    def use_attention(self, attend: AttendFn) -> None:
        """See `HeliosTransformer.use_attention`. The attention between ranks of a ring is not changed by it."""
        self.model.use_attention(attend)

    def encode_text(self, prompt_embeds_BLD: torch.Tensor) -> list[TextKeysValues]:
        """See `HeliosTransformer.encode_text`. Not sharded: noisy tokens attend to the whole text on their own rank."""
        return self.model.encode_text(prompt_embeds_BLD)

    def encode_history(self, history_BCThw: torch.Tensor, anchor_BC1hw: torch.Tensor | None) -> History:
        """See `HeliosTransformer.encode_history`. Not sharded: it is one small product, of which forward takes rows."""
        return self.model.encode_history(history_BCThw, anchor_BC1hw)

    def forward(
        self, latents_BCThw: torch.Tensor, timestep: Timestep, history: History, text: list[TextKeysValues]
    ) -> torch.Tensor:
        """Flow velocity of the noisy latents, (B, C, T, h, w), in their dtype; the same bits on all ranks.

        With cfg_degree 2, a batch of 1 (no guidance) runs on both halves of the mesh; other batches have to be even,
        ValueError otherwise.
        """
        if torch.is_grad_enabled():
            refuse_gradient("ParallelTransformer", latents_BCThw, history.tokens_BND, *self.parameters())
        batch, halves = len(latents_BCThw), self.mesh.cfg.size
        if halves == 1:
            return self._forward(latents_BCThw, timestep, history, text)
        if batch % halves and batch > 1:
            raise ValueError(f"batch: {batch} is not allowed; allowed: 1 or an even number, with cfg_degree {halves}")
        share = max(1, batch // halves)
        rows = slice(self.mesh.cfg.index * share, (self.mesh.cfg.index + 1) * share) if batch > 1 else slice(None)
        if len(history.tokens_BND) > 1:  # one history may serve the whole batch
            history = replace(history, tokens_BND=history.tokens_BND[rows])
        own_text = [kv._replace(k_BLHK=kv.k_BLHK[rows], v_BLHK=kv.v_BLHK[rows]) for kv in text]
        velocity = self._forward(latents_BCThw[rows], timestep, history, own_text)
        return gather_batch(velocity, self.mesh.cfg)[:batch]

    def _forward(
        self, latents_BCThw: torch.Tensor, timestep: Timestep, history: History, text: list[TextKeysValues]
    ) -> torch.Tensor:
        mesh, model = self.mesh, self.model
        x_BLD, table_LP = model.all_tokens(latents_BCThw, history), model.table(latents_BCThw, history)
        history_tokens = history.tokens_BND.shape[1]
        shards = SequenceShards.split(history_tokens, x_BLD.shape[1] - history_tokens, mesh.context.size)
        own_history, own_noisy = shards.slices(mesh.context.index)
        x_BLD = torch.cat([x_BLD[:, :history_tokens][:, own_history], x_BLD[:, history_tokens:][:, own_noisy]], dim=1)
        table_LP = torch.cat([table_LP[:history_tokens][own_history], table_LP[history_tokens:][own_noisy]])
        out_BLF = model.denoise_tokens(
            x_BLD,
            timestep,
            shards.history[mesh.context.index],
            table_LP,
            text,
            attend=ParallelAttend(mesh=mesh, query_tokens=shards.all, key_tokens=shards.all, attend=model.attend),
            attend_last=ParallelAttend(
                mesh=mesh, query_tokens=shards.noisy, key_tokens=shards.all, attend=model.attend
            ),
        )
        gathered_BLF = gather_tokens(out_BLF, shards.noisy, mesh.context)
        return unpatchify(gathered_BLF, latents_BCThw.shape, model.config.patch_size)
