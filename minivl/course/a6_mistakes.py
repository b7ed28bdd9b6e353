"""What goes wrong in assignment 6: small wrong versions of the right source, and what the grader says to each."""

from .tasks import mistake

LOSSES, STAGES, ADAPTED = "train.losses", "train.objectives", "train.lora.Adapted"

LAYERWISE = (
    mistake("the student feeds itself", "The student's layers are fed with the student's outputs: give each the "
            "teacher's own input to it.", f"{STAGES}.LayerDistillation.forward",
            "taken = layers_at_work(self.teacher, batch)",
            "taken = [(a, b) for (a, _), (_, b) in zip(layers_at_work(self.student, batch), "
            "layers_at_work(self.teacher, batch), strict=True)]"),
    mistake("padding counts in the loss", "Padding counts in the loss: only real tokens are summed.",
            f"{LOSSES}.layer_distance", "if mask is None", "if True"),
    mistake("channels are summed", "The distance is a mean over channels, and yours is a sum.",
            f"{LOSSES}.layer_distance", ".mean(-1)", ".sum(-1)"),
    mistake("tokens are averaged", "The distance is a sum over tokens: the step divides once, by all of them.",
            f"{LOSSES}.layer_distance", "squared.masked_fill(~mask, 0).sum()", "squared[mask].mean()"),
    mistake("layers are summed", "The loss is a mean over layers, and yours is a sum.",
            f"{STAGES}.LayerDistillation.forward", " / len(layers)", ""),
    mistake("the factor is lost", "The loss is multiplied by `factor`.",
            f"{STAGES}.LayerDistillation.forward", "self.factor * total", "total"),
    mistake("the teacher's activations carry gradients", "The teacher gets gradients: watch it under torch.no_grad().",
            f"{STAGES}.layers_at_work", "@torch.no_grad()\n", ""),
    mistake("hooks stay behind", "Hooks stay on the layers: remove each handle, also after an error.",
            f"{STAGES}.layers_at_work", "hook.remove()", "pass"),
    mistake("nothing is frozen", "What is not named must stop learning: requires_grad_(False) for the others.",
            "train.freezing.freeze", "parameter.requires_grad_(part_of(name, model.config) in learns)",
            "parameter.requires_grad_(parameter.requires_grad or part_of(name, model.config) in learns)"),
    mistake("old gradients stay", "A frozen parameter's old gradient would still be stepped along: remove it.",
            "train.freezing.freeze", "parameter.grad = None", "pass"),
)  # fmt: skip

WORDS = (
    mistake("the divergence is reversed", "The divergence is reversed: the teacher's p stands before the logarithm.",
            f"{LOSSES}.divergence", "log_p.exp() * (log_p - log_q)", "log_q.exp() * (log_q - log_p)"),
    mistake("τ² is missing", "τ² is missing: without it the gradient shrinks with the temperature.",
            f"{LOSSES}.divergence", "temperature**2 * ", ""),
    mistake("only the student is softened", "Only the student is softened: divide the teacher's logits by τ, too.",
            f"{LOSSES}.divergence", "teacher.to(wide) / temperature", "teacher.to(wide)"),
    mistake("it is cross-entropy", "This is the cross-entropy: the teacher's own entropy is not subtracted.",
            f"{LOSSES}.divergence", "log_p.exp() * (log_p - log_q)", "-log_p.exp() * log_q"),
    mistake("it is a mean", "The divergence is a sum over tokens: the step divides once, by all of them.",
            f"{LOSSES}.divergence", "(log_p - log_q)).sum()", "(log_p - log_q)).sum(-1).mean()"),
    mistake("padding is counted", "Padding is counted: keep the tokens where the mask is True.",
            f"{STAGES}.LogitDistillation.forward", "learnt = chosen(self.read(batch), batch.mask)",
            "learnt = self.read(batch).flatten(0, 1)\n        with torch.no_grad():\n"
            "            taught = self.teacher.read(batch.ids, **batch.arguments).flatten(0, 1)"),
    mistake("the temperature is not used", "The objective's temperature is not handed to the divergence.",
            f"{STAGES}.LogitDistillation.forward", ", temperature=self.temperature", ""),
)  # fmt: skip

LORA = (
    mistake("both factors are zero", "Both factors start at zero: then neither ever gets a gradient.",
            f"{ADAPTED}.__init__", "nn.Parameter(down.to(**wide))", "nn.Parameter(0 * down.to(**wide))"),
    mistake("both factors are random", "Neither factor starts at zero: the model should start as it was.",
            f"{ADAPTED}.__init__", "torch.zeros(plain.out_features, rank, **wide)",
            "torch.ones(plain.out_features, rank, **wide)"),
    mistake("the scale is applied twice", "The scale alpha / rank stands twice.",
            f"{ADAPTED}.forward", "self.scale * F.linear", "self.scale**2 * F.linear"),
    mistake("the scale is missing", "The scale alpha / rank is missing.", f"{ADAPTED}.forward",
            "self.scale * F.linear", "F.linear"),
    mistake("merging scales twice", "Merging applies the scale twice: W + scale · up · down.",
            f"{ADAPTED}.merged", "self.scale * (self.lora_up", "self.scale**2 * (self.lora_up"),
    mistake("merging leaves the scale out", "Merging leaves the scale out: W + scale · up · down.",
            f"{ADAPTED}.merged", "self.scale * (self.lora_up", "(self.lora_up"),
    mistake("merging changes the adapted layer", "Merging changes the adapted layer's own weight: add out of place.",
            f"{ADAPTED}.merged", "(self.weight.to(step.dtype) + step)", "self.weight.data.add_(step)"),
)  # fmt: skip

EVIDENCE = (
    mistake("one seed is enough", "One seed is taken for evidence: ask for at least two of each arm.",
            "experiment.verdict", "if min(map(len, results.values())) < 2:", "if False:"),
    mistake("budgets may differ", "Unequal budgets are compared: refuse arms with different numbers of steps.",
            "experiment.verdict", "if len(set(steps.values())) > 1:", "if False:"),
    mistake("means decide", "Means decide although the seeds overlap: then it is undecided.",
            "experiment.verdict", "if max(ones) < min(others):\n        return one\n"
            "    return other if max(others) < min(ones) else \"undecided\"",
            "return one if sum(ones) / len(ones) < sum(others) / len(others) else other"),
    mistake("higher is taken for better", "The arm with the higher losses is named: lower is better.",
            "experiment.verdict", "return one\n    return other if max(others) < min(ones)",
            "return other\n    return one if max(others) < min(ones)"),
    mistake("the loss before the last step is returned", "The loss returned is the one before the last step.",
            "experiment.run", "return (adapted(x) - wanted).square().mean().item()",
            "return loss.item() if steps else (adapted(x) - wanted).square().mean().item()"),
    mistake("every seed is the same", "Every seed gives the same problem: hand the seed on.",
            "experiment.run", "problem(seed)\n", "problem(0)\n"),
)  # fmt: skip
