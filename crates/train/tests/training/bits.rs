use crate::common::{decoder, floats, lora, pairs, singles, wake};
use model::LoadAs;
use train::*;
#[test]
fn print_bits() {
    for name in ["llama3_1", "qwen2", "qwen3", "mistral", "smollm2"] {
        for load in [LoadAs::F32, LoadAs::Q8_0] {
            if !testkit::fixtures::folder(name).exists() { println!("BITS no {name}"); continue; }
            let d = std::panic::catch_unwind(|| decoder(name, load));
            let Ok(d) = d else { continue };
            let vocab = d.config.vocab_size as u32;
            let mut drop = lora(4);
            drop.dropout = 0.2;
            let mut networks = vec![("lora", Network::with_new_adapter(&d, &drop, 1).unwrap())];
            wake(&mut networks[0].1);
            networks.push(("full", Network::full(&d).unwrap()));
            for (what, network) in &networks {
                for recompute in [Recompute::Layers, Recompute::Nothing] {
                    let options = StepOptions { pass: PassOptions { recompute, logit_rows: Some(7), dropout_key: 0 }, pack_tokens: 40, workers: 1, step: 1, seed: 0 };
                    let s = singles(6, vocab); let p = pairs(5, vocab);
                    let refs = vec![(-3.0, -4.0); 5];
                    let pref = Objective::Preference(Preference { loss: PreferenceLoss::Sigmoid { label_smoothing: 0.0 }, beta: 0.1, sft_weight: 0.3, sft_reduction: SftReduction::BatchTokens });
                    for (items, refs, objective) in [(&s, &vec![], Objective::Sft), (&p, &refs, pref)] {
                        let rows: Vec<&Item> = items.iter().collect();
                        let (sums, gradients) = step(network, &rows, refs, (&objective, &options)).unwrap();
                        let mut hash = 0xcbf29ce484222325u64;
                        let mut eat = |bits: u64| { hash = (hash ^ bits).wrapping_mul(0x100000001b3); };
                        eat(sums.loss.to_bits());
                        for one in network.parameters().iter() {
                            let id = network.parameters().id_of(&one.name).unwrap();
                            for x in floats(gradients.get(id).unwrap()) { eat(u64::from(x.to_bits())); }
                        }
                        println!("BITS {name} {load:?} {what} {recompute:?} {} {hash:x}", sums.loss);
                    }
                }
            }
        }
    }
}
